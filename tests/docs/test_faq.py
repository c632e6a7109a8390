"""The error texts that the FAQ quotes are the program's, each of them made here by what makes it."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from applier.on_host.errors import ApplyError
from applier.on_host.marker import Marker, check_owner
from applier.on_host.request import Claim

from ai_client import AIAPIClient
from ai_client.errors import (
    AIClientError,
    BreakerOpenError,
    BudgetExceeded,
    DeadlineExceeded,
    OverloadError,
    PoolTimeout,
    TLSVerificationError,
    TransportTimeoutError,
)
from ai_client.testing import Simulator
from ai_client.testing.faults import parse
from infra.errors import FleetError
from infra.hosts.fleet import build
from infra.plan.blockers import blockers
from infra.state import claims
from infra.state.last_run import Claimed
from tests.client.service_rig import running_service
from tests.docs.conftest import NewClone
from tests.docs.pages import text_of, walk
from tests.docs.reader import new_reader
from tests.infra.stacks import KEY, PROJECT, load, shipped

pytestmark = pytest.mark.slow

QUESTION = [{"role": "user", "content": "Hello"}]


def quoted() -> dict[str, re.Pattern[str]]:
    """Every text that the FAQ quotes, with a pattern in which an ellipsis stands for anything."""
    lines = re.findall(r"^> (.+)$", text_of("docs/faq.md"), re.MULTILINE)
    return {line: re.compile(".+?".join(map(re.escape, line.split("…")))) for line in lines}


def unmatched(made: list[str]) -> list[str]:
    """Texts that the program made and the FAQ does not quote."""
    patterns = quoted().values()
    return [text for text in made if not any(pattern.search(text) for pattern in patterns)]


async def test_what_a_gateway_says_is_quoted_as_it_says_it(tmp_path: Path) -> None:
    """Tokens, keys, models and the provider's limits, by real requests."""
    async with Simulator() as provider, running_service(tmp_path, provider) as rig:
        made = []
        for token in (None, "wrong"):
            async with rig.tcp_client(token) as client:
                made.append((await client.get("/v1/models")).json()["error"]["message"])
        provider.faults.add(parse("429; retry-after-ms=5"), count=4)
        made += [await _refusal(provider, KEY, "gpt-4.1"), await _refusal(provider, KEY, "gpt-5")]
        made.append(await _refusal(provider, "sk_of-another-provider", "gpt-4.1"))
    assert unmatched(made) == []


async def _refusal(provider: Simulator, key: str, model: str) -> str:
    async with AIAPIClient(key, provider.base_url) as client:
        with pytest.raises(AIClientError) as caught:
            await client.chat_completion(QUESTION, model=model)
    return str(caught.value)


def of_errors() -> list[str]:
    """What takes a minute, or a broken network, to happen: the errors themselves."""
    return [
        str(error)
        for error in (
            DeadlineExceeded("request 1", deadline_s=30, phase="queue", earliest_s=41.5),
            OverloadError("request 1", queued=100, limit=100),
            PoolTimeout("upstream", size=100, in_use=100, timeout_s=5),
            BreakerOpenError("gpt-4.1", retry_after_s=4.6),
            TransportTimeoutError("upstream", phase="headers", timeout_s=30, sent=True),
            TLSVerificationError("upstream", verify_reason="self-signed certificate", tls_version="TLSv1.3"),
            BudgetExceeded(
                "tenant 'web'", scope="all", period="day", limit_usd=1, spent_usd=1, asked_usd=0.1
            ),
        )
    ]


def of_the_program() -> list[str]:
    """What a preview and `up` say, on the shipped production stack and on one with mistakes in it."""
    settings = load(shipped("production"), secret=())
    wrong = shipped("production")
    wrong["groups"]["ai_api_clients"]["vars"]["ai_model_default"] = "gpt-4.l"
    fleet = build(settings)
    gone = {f"claim-gone-{n}": Claimed(claim=f"{fleet.owner}/gone-{n}") for n in range(3)}
    raising = (
        lambda: load(shipped("production") | {"apiKey": KEY}, secret=()),
        lambda: load(wrong, secret=()),
        lambda: claims.check(gone, allowed=1),
        lambda: check_owner(Marker(Claim("old/web", "old"), ()), Claim("new/web", "new")),
    )
    made = [str(blocker) for blocker in blockers(settings, fleet)]
    for call in raising:
        with pytest.raises((FleetError, ApplyError)) as caught:
            call()
        made.append(str(caught.value))
    return made


def of_ansible() -> list[str]:
    """A playbook without its collection, the inventory of a stack that is not up, and a misspelt host."""
    bare = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"}
    role = json.dumps([{"hosts": "all", "roles": ["ai_client.fleet.ai_client"]}])
    playbook = ["ansible-playbook", "-i", "localhost,", "--syntax-check", "/dev/stdin"]
    inventory = ["ansible/inventory/fleet.py", "--list"]
    outputs = {"AI_CLIENT_FLEET_OUTPUTS": os.devnull}
    config = {"ANSIBLE_CONFIG": str(PROJECT / "ansible/ansible.cfg")}
    misspelt = ["ansible-playbook", "-i", "web-1,", "--limit", "web-l", "ansible/ai-client-verify.yml"]
    return [
        _said(playbook, environment=bare, status=1, stdin=role),
        _said(inventory, environment=bare | outputs, status=1),
        _said(misspelt, environment=bare | config, status=1),
    ]


def _said(argv: list[str], *, environment: dict[str, str], status: int, stdin: str = "") -> str:
    done = subprocess.run(
        argv, cwd=PROJECT, env=environment, input=stdin, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_what_the_program_and_ansible_say_is_quoted_as_they_say_it() -> None:
    """Every one of them is in the FAQ in the words of today."""
    assert unmatched([*of_errors(), *of_the_program(), *of_ansible()]) == []


@pytest.mark.engine
def test_a_missing_passphrase_is_quoted_as_the_engine_says_it(tmp_path: Path) -> None:
    """By the engine itself, without a terminal."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PULUMI_CONFIG_PASSPHRASE")}
    environment |= {"PULUMI_BACKEND_URL": f"file://{tmp_path}", "PULUMI_HOME": str(tmp_path / "home")}
    argv = ["pulumi", "stack", "init", "nobody", "--non-interactive"]
    assert unmatched([_said(argv, environment=environment, status=1)]) == []


@pytest.mark.engine
def test_a_misspelt_stack_is_quoted_as_the_inventory_says_it(tmp_path: Path) -> None:
    """With the name of the stack that there is."""
    state = {"PULUMI_BACKEND_URL": f"file://{tmp_path}", "PULUMI_HOME": str(tmp_path / "home")}
    environment = os.environ | state | {"PULUMI_CONFIG_PASSPHRASE": "tests-only"}
    # The engine writes the new stack's file beside the project: here beside a copy.
    shutil.copy(PROJECT / "Pulumi.yaml", tmp_path)
    init = ["pulumi", "--cwd", str(tmp_path), "stack", "init", "somebody", "--no-select", "--non-interactive"]
    _said(init, environment=environment, status=0)
    argv = ["ansible/inventory/fleet.py", "--list"]
    said = _said(argv, environment=environment | {"AI_CLIENT_FLEET_STACK": "somebodi"}, status=1)
    assert unmatched([said]) == []
    assert "one of: somebody" in said


@pytest.mark.engine
def test_the_commands_of_the_page_do_what_it_says(tmp_path: Path, new_clone: NewClone) -> None:
    """The stand-in, packed as Pulumi packs the real one; the page's other command builds the collection."""
    checkout = new_clone("nobody")
    reader = new_reader(checkout, tmp_path / "home")
    program = shutil.which("pulumi-resource-command")
    assert program is not None, "the command plugin is not on PATH; start the tests by 'make test'"
    with walk("docs/faq.md") as page:
        install = page.take()
        reader.types(page.take())
    assert list((checkout.folder / "build").glob("ai_client-fleet-*.tar.gz"))
    with tarfile.open(checkout.folder / install.split()[-1], "w:gz") as packed:
        packed.add(program, "pulumi-resource-command")
    reader.types(install)
    assert "command  resource  1.2.1" in reader.types("tools/env pulumi plugin ls")


def test_the_faq_quotes_nothing_else() -> None:
    """A text that the program does not say any more is not kept; those of gateway and engine have their own tests."""
    made = [*of_errors(), *of_the_program(), *of_ansible()]
    gateway = ("Connections over TCP", "The token", "upstream: 401", "request …: failed", "model '…': does")
    engine = (
        "error: could not create secrets",
        "inventory: there is no stack",
        "warning: using pulumi-resource",
    )
    left = [
        line
        for line, pattern in quoted().items()
        if not line.startswith((*gateway, *engine)) and not any(map(pattern.search, made))
    ]
    assert left == []
