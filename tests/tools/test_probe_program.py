"""The program that an ssh key is bound to: it looks, and refuses whatever would change a host or read too much."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from applier.on_controller import wire
from applier.on_controller.delivery import make_delivery

from tests.ansible.folder_host import KEY
from tests.ansible.test_role import TEMPLATES, defaults

PROJECT = Path(__file__).resolve().parents[2]

AS_NOBODY = """
import io, json, os, re, sys
text = open(sys.argv[1]).read()
os.setuid(65534)
exec(compile(text, sys.argv[1], "exec"), {"__name__": "__main__", "__file__": sys.argv[1]})
"""
REQUEST: dict[str, Any] = {
    "mode": "apply",
    "parts": ["config"],
    "check": True,
    "run": "",
    "claim": {"name": "fleet/test/a", "owner": "fleet/test"},
    "directories": {"config": "/etc/ai-client", "cache": "/var/cache/ai-client", "log": "/var/log/ai-client"},
    "cert_path": "",
    "spool_dir": "",
    "collect": {},
    "python": "auto",
    "units": {"ai-client.service": "", "ai-client-tcp.socket": ""},
    "trees": {"cp311-x86_64": {"digest": "ab" * 32, "glibc_min": ""}},
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program as it lies on a host."""
    built = subprocess.run(
        [PROJECT / "tools" / "probe" / "build"], capture_output=True, text=True, check=True
    )
    path = tmp_path_factory.mktemp("probe") / "probe"
    path.write_text(built.stdout)
    return path


def run(program: Path, stdin: bytes, *words: str) -> subprocess.CompletedProcess[bytes]:
    """The program as root, as sudo starts it."""
    argv = [sys.executable, "-IS", program, *words]
    return subprocess.run(argv, input=stdin, capture_output=True, cwd="/", timeout=60, check=False)


def login(program: Path, command: str | None) -> subprocess.CompletedProcess[bytes]:
    """The program as a login without rights, as sshd starts it; the interpreter may be one that only root reaches."""
    environ = {"SSH_ORIGINAL_COMMAND": command} if command is not None else {}
    argv = [sys.executable, "-IS", "-c", AS_NOBODY, program]
    return subprocess.run(argv, input=b"", capture_output=True, env=environ, cwd="/", timeout=60, check=False)


def asked(
    program: Path, *words: str, artefact: bytes = b"", **changes: Any
) -> subprocess.CompletedProcess[bytes]:
    """The answer to a request as a controller sends it, with another program before it."""
    other = wire.encode_program(b"raise SystemExit('ran')", {"on_host": "raise SystemExit('ran')"})
    return run(program, wire.encode_input(other, {**REQUEST, **changes}, artefact), *words)


def is_refused(done: subprocess.CompletedProcess[bytes]) -> bool:
    return done.returncode == 1 and done.stdout == b"" and b"this key can only look" in done.stderr


@pytest.mark.parametrize(
    "changes",
    [
        {"check": False},
        {"check": "true"},
        {"mode": "decommission"},
        {"mode": "rollback"},
        {"mode": "collect", "collect": {"path": "/var/lib/ai-client/ledger.db"}},
        {"collect": {"path": "/etc/shadow"}},
        {"directories": {**REQUEST["directories"], "config": "/root/.ssh"}},
        {"directories": {**REQUEST["directories"], "log": "/etc/ai-client/../ssh"}},
        {"directories": {**REQUEST["directories"], "log": "/etc/ai-client-other"}},
        {"directories": "/etc"},
        {"directories": {"config": ["/etc/ai-client"]}},
        {"cert_path": "/etc/shadow"},
        {"cert_path": {"a": 1}},
        {"spool_dir": "/home"},
        {"units": {"../../shadow": ""}},
        {"units": {"ssh.service": ""}},
        {"units": ["ai-client.service"]},
        {"trees": {"cp311-x86_64": {"digest": "../../../etc", "glibc_min": ""}}},
        {"trees": {"../x": {"digest": "ab" * 32, "glibc_min": ""}}},
        {"trees": {"cp311-x86_64": "ab"}},
        {"cert_path": "/var/cache/ai-client/planted/shadow"},
        {"directories": {**REQUEST["directories"], "config": "/var/log/ai-client/planted"}},
        {"directories": {"config": "/etc/ai-client"}},
        {"parts": ["config", "decommission"]},
        {"parts": "config"},
        {"claim": {"name": "a", "owner": "b", "more": "c"}},
        {"units": {"ai-client.service": {"text": 1}}},
        {"key": ["a"]},
        {"config": None},
        {"profile": "of a later program"},
        {"trees": {"cp311-x86_64": {"digest": "ab" * 32, "glibc_min": "", "path": "/etc"}}},
    ],
    ids=str,
)
def test_what_is_more_than_a_look_is_refused(program: Path, changes: dict[str, Any]) -> None:
    """Before anything of the applier runs."""
    assert is_refused(asked(program, **changes))


HIDDEN = [
    ({"cert_path": "/etc/shadow"}, {"cert_path": ""}),
    ({"mode": "collect", "collect": {"path": "/etc/shadow"}}, {"mode": "apply", "collect": {}}),
    ({"mode": "decommission"}, {"mode": "apply"}),
    ({"units": {"../../../etc/shadow": "x"}}, {"units": {}}),
    ({"directories": {**REQUEST["directories"], "config": "/root"}}, {"directories": REQUEST["directories"]}),
    ({}, {"key": "x"}),
    ({"check": False}, {}),
    ({"run": "x"}, {}),
    ({"gate": {"metrics": "10.0.0.1:80"}}, {}),
]


@pytest.mark.parametrize(("desired", "manner"), HIDDEN, ids=str)
def test_what_is_checked_is_what_runs(program: Path, desired: dict[str, Any], manner: dict[str, Any]) -> None:
    """A member in the other half of the request hides nothing from the check."""
    halves = (
        {**{n: v for n, v in REQUEST.items() if n not in ("check", "run")}, "protocol": 1, **desired},
        {"check": True, "run": "", **manner},
    )
    texts = [json.dumps(half).encode() for half in halves]
    stdin = b"0\n0\n%d %d 0\n%b%b" % (len(texts[0]), len(texts[1]), *texts)
    assert is_refused(run(program, stdin))


def test_a_link_on_the_host_leads_nowhere(program: Path, tmp_path: Path) -> None:
    """A path below an allowed one that a local user has made a way out of."""
    (tmp_path / "out").symlink_to("/etc")
    for allowed in (str(tmp_path), f"{tmp_path}/"):
        done = asked(program, allowed, cert_path=f"{tmp_path}/out/shadow", protocol=999)
        assert is_refused(done)
    assert asked(program, str(tmp_path), cert_path=f"{tmp_path}/ca.pem", protocol=999).returncode == 0


def test_every_member_of_a_real_request_is_allowed(program: Path) -> None:
    """What a controller sends today, whole; a new member has to be judged before it is looked at."""
    made = make_delivery(
        mode="apply",
        parts=frozenset({"config", "secrets", "verify"}),
        check=True,
        values=defaults(),
        secrets={"ai_api_key": KEY},
        templates=TEMPLATES,
    )
    done = run(program, wire.encode_input(wire.program_text(), {**made.request, "protocol": 999}))
    assert done.returncode == 0, done.stderr
    assert "999" in json.loads(done.stdout.removeprefix(b"ai-client-applier: "))["message"]


def test_an_artefact_is_refused(program: Path) -> None:
    """A look needs none."""
    assert is_refused(asked(program, artefact=b"x"))


@pytest.mark.parametrize(
    "stdin",
    [
        b"",
        b"id\n",
        b"3\nabc",
        b"0\n0\n1 2\n{}",
        b"0\n0\n2 2 0\n[]{}",
        b"0\n0\n2 2 0\n{}",
        b"99999999999\n",
        b"0\n1\na -5\n0 0 0\n",
        b"0\n0\n2 2 0\n{}{}",
    ],
)
def test_what_is_no_request_is_refused(program: Path, stdin: bytes) -> None:
    """Whatever is typed."""
    assert is_refused(run(program, stdin))


def test_the_program_that_was_sent_is_not_run(program: Path) -> None:
    """The pull request's code stays where it is: the host's own applier answers, to another protocol with a refusal."""
    done = asked(program, protocol=999)
    assert b"ran" not in done.stdout + done.stderr
    assert done.stdout.startswith(b"ai-client-applier: ")
    answer = json.loads(done.stdout.removeprefix(b"ai-client-applier: "))
    assert answer["failed"]
    assert "999" in answer["message"]


def test_further_paths_are_allowed_by_argument(program: Path) -> None:
    """For hosts whose folders are elsewhere; named in authorized_keys, where the key's holder cannot change them."""
    folders = {**REQUEST["directories"], "cache": "/data/ai/cache"}
    assert is_refused(asked(program, directories=folders, protocol=999))
    assert asked(program, "/data/ai", directories=folders, protocol=999).returncode == 0


@pytest.mark.parametrize("command", ["", "id", "scp -t /etc", "/bin/sh -c 'sudo cat /etc/shadow'"])
def test_a_login_can_start_nothing_else(program: Path, command: str) -> None:
    """What ssh was asked to run is not run."""
    done = login(program, command)
    assert is_refused(done)
    assert b"not a controller's" in done.stderr


def test_an_interactive_login_is_refused(program: Path) -> None:
    """There is no command then."""
    assert is_refused(login(program, None))
