"""How far a run has come, as a terminal and a log show it."""

import contextlib
import io
import json
import os
import pty
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pulumi.automation.events import EngineEvent

from tools.report import failures
from tools.report.follow import Display, _results, follow
from tools.report.progress import Progress, outcomes

URN = "urn:pulumi:dev::fleet::fleet:index:Deployment$command:local:Command::"
PROJECT = Path(__file__).resolve().parents[2]


def heed(progress: Progress, event: dict[str, Any]) -> list[str]:
    return progress.heed(EngineEvent.from_json(event))


def said(text: str, severity: str = "info") -> dict[str, Any]:
    return {"diagnosticEvent": {"severity": severity, "message": f"{text}\n"}}


def step(event: str, name: str, operation: str, **environment: str) -> dict[str, Any]:
    new = {"custom": True, "inputs": {"environment": environment}}
    return {event: {"metadata": {"urn": URN + name, "op": operation, "new": new}}}


WEB_1 = {"GROUP": "web", "HOSTS": "a"}
WEB_2 = {"GROUP": "web", "HOSTS": "b,c"}
EVENTS = [
    said("roll-out: web: 3 hosts in 2 waves"),
    said("roll-out: batch: 1 host in 1 wave"),
    step("resourcePreEvent", "claim-a", "create", CLAIM="fleet/dev/a"),
    step("resOutputsEvent", "claim-a", "create", CLAIM="fleet/dev/a"),
    step("resourcePreEvent", "batch-1", "same", GROUP="batch", HOSTS="d"),
    step("resOutputsEvent", "batch-1", "same", GROUP="batch", HOSTS="d"),
    step("resourcePreEvent", "web-1", "update", **WEB_1),
    step("resOutputsEvent", "web-1", "update", **WEB_1),
    step("resourcePreEvent", "web-2", "update", **WEB_2),
    said("error: exit status 1: running:\nb: failed: answers 500\n", "error"),
    step("resOpFailedEvent", "web-2", "update", **WEB_2),
    {"summaryEvent": {"resourceChanges": {"create": 1, "update": 1, "same": 4}}},
]


def test_a_wave_that_is_deleted_is_none_of_so_many() -> None:
    """A group that shrank to one wave: its second goes, and is not `2/1`."""
    progress = Progress()
    heed(progress, said("roll-out: web: 1 host in 1 wave"))
    gone = {"metadata": {"urn": URN + "web-2", "op": "delete", "old": {"inputs": {"environment": WEB_2}}}}
    lines = [
        line for event in ("resourcePreEvent", "resOutputsEvent") for line in heed(progress, {event: gone})
    ]
    assert lines == ["delete   web-2"]


def test_a_component_that_ends_again_with_its_outputs_is_told_once() -> None:
    """The engine says of a component that it is made, and again when its outputs are known."""
    progress = Progress()
    ended = step("resOutputsEvent", "deployment", "create")
    told = [
        heed(progress, event) for event in (step("resourcePreEvent", "deployment", "create"), ended, ended)
    ]
    assert [line for lines in told for line in lines] == ["create   deployment"]


def test_a_task_of_ones_own_that_fails_after_the_deploy_counts() -> None:
    """The host has a line that is well, and then one that is not."""
    well, fault = {"host": "a", "failed": False}, {"host": "a", "failed": True, "own_task": True}
    assert outcomes([json.dumps(well), json.dumps(fault)]) == {"a": True}


def test_hosts_waves_and_failures_are_counted() -> None:
    """Every wave by its group and number, of as many as the program said; an unchanged wave counts as done."""
    progress = Progress()
    lines = [line for event in EVENTS for line in heed(progress, event)]
    assert lines == [
        "create   claim-a",
        "update   web-1  (wave web 1/2: 2 of 4 hosts done, 0 failed)",
        "FAILED   web-2  (wave web 2/2: 4 of 4 hosts done, 1 failed)",
    ]
    assert progress.changes == {"create": 1, "update": 1}
    assert "b: failed: answers 500" in progress.errors[0]


RUN = 'exit status 1: running "exec env -i ${PATH+PATH=\\"$PATH\\"} .venv/bin/python -m infra.run":\n'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        # Results are told host by host, by `failures`; what else the run said stays.
        (f'{RUN}b: failed: full\n{{"hosts": {{"b": {{"failed": true, "message": "full"}}}}}}\n', []),
        (f'{RUN}b: unreachable: no\nhelp\n{{"hosts": {{"b": {{"unreachable": true}}}}}}\n', ["help"]),
        # Cut off: the lines are all there is.
        (f'{RUN}b, c: failed: full\n{{"hosts": {{"b": {{"fai', ["b, c: failed: full"]),
        ('exit status 1: running "exec env -i .venv/bin/python -m infra.run":', [RUN[:0] + "itself"]),
        ("fleet:apiKey: is missing", ["fleet:apiKey: is missing"]),
        ("error: update failed", []),
    ],
)
def test_an_error_is_shown_in_words_for_people(text: str, shown: list[str]) -> None:
    """Without the shell line of the run and its results as JSON; never shortened to nothing, and never twice."""
    progress = Progress()
    heed(progress, said(text, "error"))
    heed(progress, said(text, "error"))
    assert progress.errors == [text if line == "itself" else line for line in shown]


UNREACHED = {"unreachable": True, "message": "jump host jump-1 does not answer: refused"}


def test_a_failure_is_a_line_of_cause_deed_and_place() -> None:
    """Hosts that only their name tells apart share one; those that are well have none."""
    told = failures.lines(
        {
            "a": {"changed": True},
            "b": {
                "failed": True,
                "changed": True,
                "rolled_back": True,
                "release": "r1",
                "message": "answers\n500",
            },
            "c": UNREACHED,
            "d": UNREACHED,
            "e": {"failed": True, "changed": False, "message": "no room in /etc"},
            "f": {"failed": True, "changed": True, "message": "unhealthy; going back failed too"},
            "g": {"failed": True, "changed": True, "own_task": True, "message": "the task 'x' failed"},
        }
    )
    assert told == [
        "b · answers 500 · rolled back to r1 · 'journalctl -u ai-client' on the host",
        "c, d · jump host jump-1 does not answer: refused · not changed · ping it: docs/how-to/day-two.md",
        "e · no room in /etc · not changed · docs/how-to/incidents.md, 'A roll-out stopped'",
        "f · unhealthy; going back failed too · not rolled back · 'journalctl -u ai-client' on the host",
        "g · the task 'x' failed · deployed, and kept · docs/how-to/incidents.md, 'A roll-out stopped'",
    ]


def test_pages_that_failures_lead_to_have_what_they_promise() -> None:
    """File, heading, and the command that pings."""
    assert "## A roll-out stopped" in (PROJECT / "docs/how-to/incidents.md").read_text()
    assert "-m ping" in (PROJECT / "docs/how-to/day-two.md").read_text()


def test_hosts_behind_one_dead_jump_host_are_one_line_whatever_their_waves() -> None:
    """Each wave fails with its own error of the engine."""
    progress = Progress()
    for host in ("c", "d"):
        results = json.dumps({"hosts": {host: UNREACHED}})
        heed(progress, said(f"{RUN}{host}: unreachable: {UNREACHED['message']}\n{results}\n", "error"))
    assert progress.failed == {"c", "d"}
    assert progress.errors == []
    assert len(failures.lines(progress.results)) == 1


def test_what_up_still_needs_is_said_once() -> None:
    """As a warning while the run goes on; the error that ends it says the same, and the engine's last word nothing."""
    progress = Progress()
    blocker = "hostKeys: no pinned host key for web-1; write it"
    assert heed(progress, said(f"up still needs: {blocker}", "warning")) == [f"up still needs: {blocker}"]
    assert heed(progress, said(f"up still needs: {blocker}", "warning")) == []
    heed(progress, said(blocker, "error"))
    heed(progress, said("an unhandled error occurred: program exited with non-zero exit code: 1", "error"))
    assert progress.told() == []


def test_what_is_under_way_before_and_beside_waves_is_shown() -> None:
    """A run that looks at hosts for a minute says so; a claim that is made has its name."""
    progress = Progress()
    assert progress.status() == "looking at the hosts"
    heed(progress, step("resourcePreEvent", "claim-a", "create", CLAIM="fleet/dev/a"))
    assert progress.status() == "create claim-a"
    heed(progress, step("resOutputsEvent", "claim-a", "create", CLAIM="fleet/dev/a"))
    assert progress.status() == ""


def test_a_component_under_way_is_not_shown() -> None:
    """It has been under way since its first child: a name that never leaves the line is no news."""
    progress = Progress()
    grouping = step("resourcePreEvent", "deployment", "create")
    grouping["resourcePreEvent"]["metadata"]["new"]["custom"] = False
    heed(progress, grouping)
    heed(progress, step("resourcePreEvent", "claim-a", "create", CLAIM="fleet/dev/a"))
    assert progress.status() == "create claim-a"


def test_counts_are_within_80_columns_whatever_is_under_way() -> None:
    """Eight waves of long names run side by side; a terminal cuts the line off."""
    progress = Progress()
    for number in range(8):
        name = f"ai_a_group_with_a_long_name_{number}"
        heed(progress, said(f"roll-out: {name}: 9 hosts in 2 waves"))
        heed(progress, step("resourcePreEvent", f"{name}-1", "update", GROUP=name, HOSTS="a,b"))
    assert "0 of 72 hosts done, 0 failed" in f"up 1041.2s  {progress.status()}"[:79]


def test_a_wave_under_way_shows_its_hosts_as_they_end() -> None:
    """By what the run itself has written so far; hosts of no running wave do not count."""
    progress = Progress()
    for event in EVENTS[:9]:
        heed(progress, event)
    assert progress.status() == "2 of 4 hosts done, 0 failed; wave web 2/2: b, c"
    progress.take_results({"b": True, "elsewhere": True})
    assert progress.status() == "3 of 4 hosts done, 1 failed; wave web 2/2: c"


def test_only_what_a_run_has_written_whole_is_read_and_its_first_word_counts() -> None:
    """A host that is put back afterwards has failed all the same."""
    lines = ['{"host": "a", "failed": true}', '{"host": "a", "failed": false}', '{"host": "b", "unre']
    assert outcomes(lines) == {"a": True}


WRITING = """
import sys
from infra.playbook import run_folder, runner
with run_folder.scratch_folder() as folder, runner._in_memory(folder / "results.jsonl"):
    with (folder / "results.jsonl").open("a") as file:
        file.write('{"host": "a", "failed": false, "message": "s3cret"}\\n')
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_results_are_read_from_runs_below_the_engine_and_are_on_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the stack is named and whoever owned its hosts; the folder of a run holds no result, killed or not."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(PROJECT)}
    script = tmp_path / "run.py"
    script.write_text(WRITING)
    argv = ["/bin/sh", "-c", f"{sys.executable} {script}; true"]
    with subprocess.Popen(argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        folder = Path(shell.stdout.readline().decode().strip())
        assert _results(shell.pid) == {"a": False}
        assert _results(os.getpid()) == {"a": False}
        assert _results(2**22) == {}
        written = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
        assert all("s3cret" not in path.read_text() for path in written)
        assert shell.stdin is not None
        shell.stdin.close()
    assert not folder.exists()


def engine(tmp_path: Path, *, status: int = 0) -> list[str]:
    """A program that prints the events of a run, among other things."""
    script = tmp_path / "engine.py"
    lines = ["not an event", *map(json.dumps, EVENTS)]
    script.write_text(f"import sys\nfor line in {lines!r}:\n    print(line)\nsys.exit({status})\n")
    return [sys.executable, str(script)]


@pytest.mark.parametrize("status", [0, 1])
def test_a_log_gets_a_line_for_each_thing_that_happened(tmp_path: Path, status: int) -> None:
    """No control characters; the engine's status is passed on."""
    out = io.StringIO()
    ended, progress = follow(engine(tmp_path, status=status), verb="up", out=out)
    assert (ended, progress.failed) == (status, {"b"})
    lines = out.getvalue().splitlines()
    words = [line.split("s  ", 1)[1].split()[0] for line in lines]
    # How things stand is shown at a tick of the clock.
    assert [word for word in words if word not in {"wave", "looking"}] == ["create", "update", "FAILED"]
    assert all(line.isprintable() for line in lines)


def test_a_log_is_not_flooded() -> None:
    """The same is said once, and what changes at most every few seconds."""
    out = io.StringIO()
    display = Display(out, verb="up", started_s=0)
    for now_s, done in [(0, 1), (1, 2), (2, 2), (6, 3), (20, 3)]:
        display.status(f"{done} done", now_s=now_s)
    assert [line.split("s  ")[1] for line in out.getvalue().splitlines()] == ["1 done", "3 done"]


def _pieces(terminal: int) -> Iterator[str]:
    """What was written to a terminal whose other end is closed; it comes in pieces, and then an error."""
    with contextlib.suppress(OSError):
        while piece := os.read(terminal, 4096):
            yield piece.decode()


def test_a_terminal_has_one_line_that_is_kept_up_to_date() -> None:
    """It is taken away before a line that stays, and at the end."""
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as out:
        display = Display(out, verb="up", started_s=0)
        display.status("1 done", now_s=1)
        display.status("2 done", now_s=2)
        display.say("update   web-1", now_s=3)
        display.status("3 done", now_s=4)
        display.close()
    shown = "".join(_pieces(master))
    os.close(master)
    assert shown == (
        "up    1.0s  1 done\r\x1b[Kup    2.0s  2 done\r\x1b[Kup    3.0s  update   web-1\r\n"
        "up    4.0s  3 done\r\x1b[K"
    )


def test_the_command_needs_a_stack() -> None:
    """What is no name of a stack, such as an option, is not taken for one."""
    for words in ([], ["--stack"]):
        asked = subprocess.run(
            [sys.executable, "-m", "tools.report.follow", *words],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (asked.returncode, asked.stderr) == (2, "usage: tools/up STACK [OPTIONS OF pulumi up]\n")
