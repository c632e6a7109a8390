"""What README.md and the pages say, typed by somebody new to the project, on hosts that its first command brings up.

The stack is the dev stack under a name and a link of the tests' own, with the state in the home folder of who types.
"""

import hashlib
import ipaddress
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.pages import Command, Walk, walk
from tests.docs.reader import Reader, new_reader
from tests.fleet.clones import clone
from tests.fleet.conftest import LINK, STACK
from tests.fleet.test_changes import STOP_SSH
from tests.fleet.waiting import wait_until
from tests.hosts_of_run import removed_at_the_end
from tests.infra.stacks import KEY

pytestmark = [pytest.mark.engine, pytest.mark.hosts, pytest.mark.slow]

NAME = f"{STACK}-pages"
HOST = "api-dev-01"
HOSTS = (HOST, "api-dev-02", "batch-dev-01")
PROVIDER = "http://10.88.0.1:8000/control"
READER = {
    "PULUMI_CONFIG_PASSPHRASE": "dev-stack-only",
    # Pages say `preview` where it is wanted; before each `up` it would double the time.
    "PULUMI_OPTION_SKIP_PREVIEW": "true",
    **{f"GIT_{who}_NAME": "reader" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "reader@localhost" for who in ("AUTHOR", "COMMITTER")},
}
TOOL = "tools/stacks/dev.py"
UP = f"tools/env pulumi up --stack {NAME}"


@dataclass
class Newcomer:
    """Who reads the pages, and the clone that they have.

    Attributes:
        reader: types.
        said: what `make up` said at its end.
    """

    reader: Reader
    said: str

    def types(self, commands: list[Command]) -> list[str]:
        """Types each command where its page says, and answers what each one printed."""
        return [
            self.reader.types_on(HOST, c.text) if c.on_host else self.reader.types(c.text) for c in commands
        ]

    @property
    def file(self) -> Path:
        """The stack's file."""
        return self.reader.clone.folder / f"Pulumi.{NAME}.yaml"

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Changes the configuration as with an editor."""
        content = yaml.safe_load(self.file.read_text())
        change(content["config"])
        self.file.write_text(yaml.safe_dump(content, sort_keys=False))

    def provider(self, words: str) -> str:
        """Asks the simulator to behave as a provider in trouble."""
        return self.reader.clone.ssh(HOST, f"curl -s --fail {words}").output

    def asks(self, question: str, *, host: str = HOST) -> dict[str, Any]:
        """What a program on the host gets from its gateway."""
        body = {"model": "gpt-4.1", "messages": [{"role": "user", "content": question}], "max_tokens": 4}
        answer = self.reader.clone.ssh(
            host,
            "curl -s --unix-socket /run/ai-client/gateway.sock http://localhost/v1/chat/completions"
            f" -H 'Content-Type: application/json' -d '{json.dumps(body)}'",
        )
        return dict(json.loads(answer.output))

    def key(self, *, host: str = HOST, file: str = "key") -> str:
        """The upstream key that a host has."""
        return self.reader.clone.ssh(host, f"sudo cat /etc/ai-client/{file}").output.strip()

    def main_pid(self, host: str) -> str:
        """The process that serves on a host."""
        show = "systemctl show --property MainPID --value ai-client"
        return self.reader.clone.ssh(host, show).output.strip()

    def release(self, host: str) -> str:
        """The release that a host serves with."""
        return self.reader.clone.ssh(host, "readlink /opt/ai-client/current").output.strip()

    def error_code(self, question: str) -> object:
        """The code of the error that a program gets, or None where it gets an answer."""
        error = self.asks(question).get("error")
        return error["code"] if isinstance(error, dict) else None


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    """Brings the stack up by README's first command, and takes it down by its last."""
    work = tmp_path_factory.mktemp("pages")
    state = work / "home" / ".local" / "state" / "ai-client-fleet"
    state.mkdir(parents=True)
    checkout = clone(work / "clone", state=state, stack=NAME)
    # `make up` makes it anew; through the link it would change the one that these tests run in.
    (checkout.folder / ".venv").unlink()
    tool = checkout.folder / TOOL
    assert tool.read_text().count('STACK = "dev"') == 1
    tool.write_text(tool.read_text().replace('STACK = "dev"', f'STACK = "{NAME}"'))
    _take_a_link_of_our_own(checkout.folder)
    reader = new_reader(checkout, work / "home", **READER)
    reader.names = {
        "--stack dev": f"--stack {NAME}",
        "AI_CLIENT_FLEET_STACK=dev": f"AI_CLIENT_FLEET_STACK={NAME}",
        "production": NAME,
        "web-prod-01": "api-dev-02",
        "claim-web-prod-01": "claim-api-dev-02",
    }
    try:
        with removed_at_the_end(NAME):
            with walk("README.md") as page:
                up = page.take()
                said = reader.types(up)
                page.rest()
            yield Newcomer(reader, said)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _take_a_link_of_our_own(folder: Path) -> None:
    """The dev stack's file for our stack, on the link after the one of the other tests' stack."""
    content = yaml.safe_load((folder / "Pulumi.dev.yaml").read_text())
    other = ipaddress.ip_network(LINK)
    ours = ipaddress.ip_network((int(other.network_address) + other.num_addresses, other.prefixlen))
    content["config"]["fleet:local"]["link"] = str(ours)
    # How hosts are watched and go in waves has tests of its own; here it would take minutes.
    content["config"]["fleet:gate"] = {"seconds": 0}
    content["config"]["fleet:groups"]["ai_api_clients"]["canary"] = 0
    (folder / f"Pulumi.{NAME}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def test_the_first_five_minutes_go_as_the_readme_says(newcomer: Newcomer) -> None:
    """`make up`, what its summary says to try, a question to the hosts, the five steps and what is typed on a host."""
    assert "The dev stack is up" in newcomer.said
    tries = [line for line in newcomer.said.splitlines() if line.startswith("  ")]
    assert tries.pop() == "  make down"
    for line in tries:
        newcomer.reader.types(line)
    with walk("README.md") as page:
        _, ask, down, new, begin, look, up = (page.take() for _ in range(7))
        assert newcomer.reader.types(ask).count("ok   upstream") == len(HOSTS)
        assert down == "make down\n"
        assert "Pulumi.staging.yaml is written" in newcomer.reader.types(new)
        newcomer.reader.types(begin)
        assert "no pinned host key for api-staging-01" in newcomer.reader.types(look)
        assert "no pinned host key for api-staging-01" in newcomer.reader.types(up, expect=(1, 255))
        on_host = newcomer.types(page.rest())
    assert '"id":"gpt-4.1"' in on_host[0]
    assert "Say hello." in on_host[0]


def test_a_key_is_rotated_by_its_page(newcomer: Newcomer) -> None:
    """In one step, for one group, and in two steps with both keys on the hosts between them."""
    reader = newcomer.reader
    with walk("docs/how-to/rotation.md") as page:
        reader.key = f"{KEY}_in_one_step"
        said = newcomer.types([page.left.pop(0) for _ in range(2)])
        assert all(f"{host}: differs" in said[0] for host in HOSTS)
        assert {result["key_fingerprint"] for result in _json(said[1]).values()} == {_fingerprint(reader.key)}
        reader.key = f"{KEY}_of_a_group"
        reader.types(page.take())
        assert newcomer.key(host="batch-dev-01") == reader.key
        reader.key = f"{KEY}_that_comes_next"
        reader.types(page.take())
        assert newcomer.key(file="key.next") == reader.key
        reader.types(page.take())
    assert newcomer.key() == reader.key
    reader.clone.ssh(HOST, "sudo ls /etc/ai-client/key.next", expect=2)
    assert newcomer.error_code("With which key?") is None


def test_day_two_is_lived_by_its_page(newcomer: Newcomer) -> None:
    """Every command of the page in its order; what one changes in the stack's file is taken back before the next."""
    reader = newcomer.reader
    reader.types("git init -q\ngit add -A\ngit commit -q -m 'The good release'")
    with walk("docs/how-to/day-two.md") as page:
        newcomer.types([page.left.pop(0) for _ in range(2)])
        digest = reader.types(f"tools/env pulumi stack output planDigest --stack {NAME}").split()[-1]
        reader.names |= {"DIGEST": digest, "COMMIT": "HEAD", "web-prod-02": "api-dev-02"}
        reader.names |= _as_by_hand(newcomer)
        before = newcomer.file.read_text()
        for command in page.rest():
            saved = reader.variables
            if "--preview-only" in command.text:
                # The engine takes none of its other answers beside it.
                answers = ("PULUMI_OPTION_SKIP_PREVIEW", "PULUMI_SKIP_CONFIRMATIONS")
                reader.variables = {name: value for name, value in saved.items() if name not in answers}
            newcomer.types([command])
            reader.variables = saved
            newcomer.file.write_text(before)


def _as_by_hand(newcomer: Newcomer) -> dict[str, str]:
    """The owner that a host names, and a Vault file with its key whose password needs no terminal."""
    folder = newcomer.reader.clone.folder
    password = folder.parent / "vault-password"
    password.write_text("only-here\n")
    (folder / "vault.yml").write_text(f"ai_api_key: {newcomer.key()}\n")
    newcomer.reader.types(f"tools/env ansible-vault encrypt --vault-password-file {password} vault.yml")
    return {
        f"fleet/{NAME}@0123456789ab": _owner(newcomer),
        "--ask-vault-pass": f"--vault-password-file {password}",
    }


def test_a_revoked_key_is_replaced_by_its_section(newcomer: Newcomer) -> None:
    """Callers are refused with the code that the page names, until the new key is there."""
    refused = {"refused": [_fingerprint(newcomer.key())]}
    newcomer.provider(f"-X POST {PROVIDER}/keys -d '{json.dumps(refused)}'")
    assert newcomer.error_code("Is the key good?") == "invalid_api_key"
    newcomer.reader.key = f"{KEY}_after_it_leaked"
    with incident("A key was revoked or leaked") as page:
        _, said = newcomer.types(page.rest())
    assert _json(said)[HOST]["key_fingerprint"] == _fingerprint(newcomer.reader.key)
    assert newcomer.error_code("Is the new key good?") is None


def test_another_model_answers_while_one_is_down(newcomer: Newcomer) -> None:
    """The breaker opens, the model that the section names answers in its place, and it is taken out again."""
    fault = {"fault": "503", "count": 10_000, "model": "gpt-4.1"}
    newcomer.provider(f"-X POST {PROVIDER}/faults -d '{json.dumps(fault)}'")
    with incident("The provider is down") as page:
        codes = [newcomer.error_code(f"Are you there, {n}?") for n in range(4)]
        assert codes[-1] == "circuit_open"
        newcomer.reader.types(page.take())
        assert newcomer.asks("Who answers?")["model"] == "gemini-2.5-flash"
        newcomer.provider(f"-X DELETE {PROVIDER}/faults")
        newcomer.reader.types(page.take())
    chain = newcomer.reader.clone.ssh(HOST, "sudo grep fallback_chain /etc/ai-client/ai-client.conf").output
    assert "gemini" not in chain
    # Nothing has to be done: the breaker tries again, some seconds after it opened.
    wait_until(lambda: newcomer.error_code("Are you back?") is None, within_s=90)


def test_a_budget_that_is_hit_is_raised_by_its_section(newcomer: Newcomer) -> None:
    """Callers are told which budget it is; `usage` says who spent it; the raised one serves without a restart."""
    budgeted = {"ai_budget_daily_usd": 0.0001, "ai_gateway_unnamed_callers": "allow"}
    newcomer.edit(lambda config: config.update({"fleet:vars": budgeted}))
    newcomer.reader.types(UP)
    assert newcomer.error_code("What does this cost?") == "budget_exceeded"
    before = newcomer.main_pid(HOST)
    with incident("The budget is hit") as page:
        usage = page.take()
        assert "uid-" in newcomer.reader.types_on(HOST, usage)
        refused = newcomer.reader.types_on(HOST, usage.replace("sudo ", ""), expect=1)
        assert "run it as root" in refused
        assert "Traceback" not in refused
        newcomer.reader.types(page.take())
    assert newcomer.error_code("And this?") is None
    assert newcomer.main_pid(HOST) == before


def test_what_hosts_say_is_asked_for_by_the_page(newcomer: Newcomer) -> None:
    """Their health, their journal, and the lock of a run that died."""
    with incident("When something is wrong") as page:
        everywhere, on_host = newcomer.types(page.rest())
    assert everywhere.count("failed=0") == len(HOSTS)
    assert "ok   service" in on_host
    with incident("A roll-out stopped") as page:
        assert json.loads(newcomer.types(page.rest())[0])["result"] == "ok"
    with incident("A run was killed") as page:
        newcomer.types(page.rest())


def test_a_release_is_rolled_back_by_hand_by_its_section(newcomer: Newcomer) -> None:
    """The commit that brought a release is undone; hosts are on the one before it, and the key stays."""
    folder = newcomer.reader.clone.folder
    newcomer.reader.types("git init -q\ngit add -A\ngit commit -q --allow-empty -m 'The good release'")
    before = newcomer.release(HOST)
    source = folder / "client/src/ai_client/cli/serve.py"
    source.write_text(source.read_text() + "\n# A release that nobody likes.\n")
    newcomer.reader.types(f"git commit -q -a -m 'The bad release'\n{UP}")
    assert newcomer.release(HOST) != before
    with incident("A release is bad, but healthy") as page:
        newcomer.types(page.rest())
    assert {newcomer.release(host) for host in HOSTS} == {before}


def test_a_state_that_is_lost_comes_back_from_its_copy(newcomer: Newcomer) -> None:
    """With the whole backend gone: the imported state has nothing to change."""
    with incident("The state is lost") as page:
        newcomer.reader.types(page.take())
        shutil.rmtree(newcomer.reader.clone.state / ".pulumi")
        assert "unchanged" in newcomer.reader.types(page.take())
        pids = {host: newcomer.main_pid(host) for host in HOSTS}
        shutil.rmtree(newcomer.reader.clone.state / ".pulumi")
        newcomer.reader.types(page.take())
        assert {host: newcomer.main_pid(host) for host in HOSTS} == pids


def test_a_host_of_another_owner_is_taken_over_by_its_section(newcomer: Newcomer) -> None:
    """By the owner that the refusal names, and by taking the marker away."""
    with incident("Take hosts over from another state or stack") as page:
        newcomer.reader.names |= {"live": NAME, f"fleet/{NAME}@0123456789ab": _of_another(newcomer)}
        look = f"tools/env pulumi preview --stack {NAME}"
        assert "this host belongs to fleet/another-stack" in newcomer.reader.types(look)
        newcomer.reader.types(page.take())
        assert _owner(newcomer).startswith(f"fleet/{NAME}")
        _of_another(newcomer)
        newcomer.reader.types_on(HOST, page.take())
        newcomer.reader.types(UP)
    assert _owner(newcomer).startswith(f"fleet/{NAME}")


def _of_another(newcomer: Newcomer) -> str:
    """Makes a host another stack's, and answers its owner."""
    newcomer.reader.clone.ssh(HOST, f"sudo sed -i s/{NAME}/another-stack/g /etc/ai-client/claim.json")
    return _owner(newcomer)


def _owner(newcomer: Newcomer) -> str:
    marker = newcomer.reader.clone.ssh(HOST, "sudo cat /etc/ai-client/claim.json").output
    return str(json.loads(marker)["owner"])


def test_a_host_that_is_gone_is_forgotten_by_its_section(newcomer: Newcomer) -> None:
    """`up` does not forget by itself a host that it cannot reach: it may come back with the key on its disk."""
    newcomer.reader.clone.ssh("api-dev-02", STOP_SSH, expect=None)
    newcomer.edit(_without_the_host)
    assert "api-dev-02: unreachable" in newcomer.reader.types(UP, expect=(1, 255))
    with incident("A host is gone for good") as page:
        newcomer.types(page.rest())
    assert "api-dev-02" not in newcomer.reader.types(f"tools/env pulumi stack export --stack {NAME}")


def _without_the_host(config: dict[str, Any]) -> None:
    del config["fleet:groups"]["ai_api_clients"]["hosts"]["api-dev-02"]


def incident(section: str) -> AbstractContextManager[Walk]:
    """A section of the runbook."""
    return walk("docs/how-to/incidents.md", section)


def _json(said: str) -> dict[str, Any]:
    """The structure that a command printed, without what the engine's tools said beside it."""
    return dict(json.loads(next(line for line in said.splitlines() if line.startswith("{"))))


def _fingerprint(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:12]
