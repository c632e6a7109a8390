"""Who may clean a host up, told by the program of a run to the commands of that run, and to nobody else."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra import run
from infra.errors import PlaybookError
from infra.playbook import consent
from infra.playbook.consent import Machine, Verdict
from infra.playbook.request import RunRequest
from tests.infra.stacks import PROJECT

ENGINE = """#!/bin/sh
"$@"
"""
NOTE = """
from infra.playbook.consent import Machine, note
note(leaving=[Machine("fleet/a/gone", "10.0.0.1"), Machine("fleet/a/both", "10.0.0.3")],
     staying=[Machine("fleet/a/here", "10.0.0.2", "i-1"), Machine("fleet/a/both", "10.0.0.3")])
"""
ASK = """
import sys
from infra.playbook.consent import Machine, verdict
print(verdict(Machine(*sys.argv[1:])).value)
"""
MACHINES = {
    ("fleet/a/gone", "10.0.0.1"): "leaves",
    ("fleet/a/here", "10.0.0.2", "i-1"): "stays",
    ("fleet/a/both", "10.0.0.3"): "stays",
    ("fleet/a/gone", "10.0.0.9"): "unsaid",
    ("fleet/a/here", "10.0.0.2", "i-2"): "unsaid",
}


def engine(folder: Path, script: str, *words: str) -> list[str]:
    """Runs a shell script under a process that is called as the engine is, with more words; what it printed."""
    folder.mkdir(exist_ok=True)
    program = folder / "pulumi"
    program.write_text(ENGINE)
    program.chmod(0o755)
    # The shell between them stands for language host and plugin.
    argv = [str(program), "/bin/sh", "-c", f"{script}\ntrue", "sh", *words]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder.parent), "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()


def python(code: str, *words: str) -> str:
    return " ".join([sys.executable, "-c", f"'{code}'", *words])


def test_the_commands_of_a_run_know_what_its_program_said(tmp_path: Path) -> None:
    """Machine by machine: claim, address and instance; what stays is never said to leave."""
    asked = [python(ASK, *machine) for machine in MACHINES]
    assert engine(tmp_path / "bin", "\n".join([python(NOTE), *asked])) == list(MACHINES.values())


def test_another_run_knows_nothing_of_it(tmp_path: Path) -> None:
    """`destroy` after `up` is another engine; and what an engine that is gone left is swept away."""
    engine(tmp_path / "bin", python(NOTE))
    folder = tmp_path / ".local/state/ai-client-fleet/runs"
    (left,) = folder.iterdir()
    assert left.stat().st_mode & 0o777 == 0o600
    assert engine(tmp_path / "bin", python(ASK, "fleet/a/gone", "10.0.0.1")) == ["unsaid"]
    engine(tmp_path / "bin", python(NOTE))
    assert not left.exists()


def test_a_note_that_others_could_write_says_nothing(tmp_path: Path) -> None:
    """Whoever can write it could have hosts wiped."""
    opened = f"chmod 666 {tmp_path}/.local/state/ai-client-fleet/runs/*.json"
    lines = [python(NOTE), opened, python(ASK, "fleet/a/gone", "10.0.0.1")]
    assert engine(tmp_path / "bin", "\n".join(lines)) == ["unsaid"]


def request(**changes: Any) -> RunRequest:
    variables = {"ansible_host": "10.0.0.1", "ai_claim": "fleet/a/web-1", "ai_claim_owner": "fleet/a"}
    return RunRequest(
        **{
            "playbook": "ansible/ai-client-decommission.yml",
            "inventory": {"all": {"hosts": {"web-1": variables}}},
            "ssh_config": "",
            "known_hosts": "",
        }
        | changes
    )


def decommissioned(
    monkeypatch: pytest.MonkeyPatch, said: Verdict, found: dict[str, Any], **changes: Any
) -> tuple[bool, Any]:
    """Whether a host was cleaned up, and what was answered, where a look at it finds this."""
    ran: list[bool] = []

    def execute(order: RunRequest, **_: object) -> tuple[dict[str, Any], str]:
        ran.append(not order.check)
        return {"web-1": found}, ""

    monkeypatch.setattr(run, "execute", execute)
    monkeypatch.setattr(consent, "verdict", lambda machine: said)
    order = request(**changes)
    answer = run.left_alone(order) or run.roll_out(order)
    return any(ran), answer[0]["web-1"]


def test_a_host_that_the_run_says_leaves_is_cleaned_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ever."""
    assert decommissioned(monkeypatch, Verdict.LEAVES, {"changed": True})[0]


def test_a_claim_that_is_replaced_leaves_its_host_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--replace`, a taint, another type or parent: the stack still declares the host."""
    cleaned, answer = decommissioned(monkeypatch, Verdict.STAYS, {"changed": True})
    assert not cleaned
    assert "left alone" in answer["message"]


def test_without_a_word_a_host_is_cleaned_up_only_where_the_state_consents(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`destroy`: the error names the way. A host with nothing on it, or out of reach, is told as it is."""
    with pytest.raises(PlaybookError, match="allowDestroy true"):
        decommissioned(monkeypatch, Verdict.UNSAID, {"changed": True})
    assert decommissioned(monkeypatch, Verdict.UNSAID, {"changed": True}, may_clean_up=True)[0]
    assert not decommissioned(monkeypatch, Verdict.UNSAID, {"changed": False})[0]
    gone = {"changed": False, "unreachable": True, "message": "no route"}
    assert decommissioned(monkeypatch, Verdict.UNSAID, gone) == (False, gone)


def test_local_hosts_of_an_older_state_need_no_consent(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are thrown away as a whole; their requests did not say so."""
    config = "Host *\n  IdentityFile /var/lib/ai-client-fleet/local/dev/ssh/id_ed25519\n"
    assert decommissioned(monkeypatch, Verdict.UNSAID, {"changed": True}, ssh_config=config)[0]


def test_a_machine_is_what_the_request_says() -> None:
    """Claim and address from the inventory, the instance beside it."""
    order = request(instance={"id": "i-1"})
    assert Machine.of_request(order.inventory, order.instance) == Machine("fleet/a/web-1", "10.0.0.1", "i-1")
