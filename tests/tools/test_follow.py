"""How far a run has come, as a terminal and a log show it."""

import contextlib
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.follow import Display, follow
from tools.progress import Progress, outcomes

URN = "urn:pulumi:dev::fleet::fleet:index:Deployment$command:local:Command::"
PROJECT = Path(__file__).resolve().parents[2]


def said(text: str, severity: str = "info") -> dict[str, Any]:
    return {"diagnosticEvent": {"severity": severity, "message": f"{text}\n"}}


def step(event: str, name: str, operation: str, **environment: str) -> dict[str, Any]:
    new = {"inputs": {"environment": environment}}
    return {event: {"metadata": {"urn": URN + name, "op": operation, "new": new}}}


WEB_1 = {"GROUP": "web", "HOSTS": "a"}
WEB_2 = {"GROUP": "web", "HOSTS": "b,c"}
EVENTS = [
    said("roll-out: web: 3 hosts in 2 waves"),
    said("roll-out: batch: 1 hosts in 1 waves"),
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


def test_hosts_waves_and_failures_are_counted() -> None:
    """Every wave by its group and number, of as many as the program said; an unchanged wave counts as done."""
    progress = Progress()
    lines = [line for event in EVENTS for line in progress.heed(event)]
    assert lines == [
        "create   claim-a",
        "update   web-1  (wave web 1/2: 2 of 4 hosts done, 0 failed)",
        "FAILED   web-2  (wave web 2/2: 4 of 4 hosts done, 1 failed)",
    ]
    assert progress.changes == {"create": 1, "update": 1}
    assert "b: failed: answers 500" in progress.errors[0]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            'exit status 1: running "exec env -i ${PATH+PATH=\\"$PATH\\"} .venv/bin/python -m infra.run":\n'
            'b: failed: answers 500\nc: unreachable: timed out\n{"hosts": {"b": {"failed": true}}}\n',
            "b: failed: answers 500\nc: unreachable: timed out",
        ),
        ('exit status 1: running "exec env -i .venv/bin/python -m infra.run":\n', None),
        ("fleet:apiKey: is missing", None),
    ],
)
def test_an_error_is_shown_in_words_for_people(text: str, shown: str | None) -> None:
    """Without the shell line of the run and its results as JSON; never shortened to nothing."""
    progress = Progress()
    progress.heed(said(text, "error"))
    assert progress.errors == [shown or text.strip()]


def test_a_wave_under_way_shows_its_hosts_as_they_end() -> None:
    """By what the run itself has written so far; hosts of no running wave do not count."""
    progress = Progress()
    for event in EVENTS[:9]:
        progress.heed(event)
    assert progress.status() == "wave web 2/2: 2 of 4 hosts done, 0 failed"
    progress.take_results({"b": True, "elsewhere": True})
    assert progress.status() == "wave web 2/2: 3 of 4 hosts done, 1 failed"


def test_only_what_a_run_has_written_whole_is_read_and_its_first_word_counts() -> None:
    """A host that is put back afterwards has failed all the same."""
    lines = ['{"host": "a", "failed": true}', '{"host": "a", "failed": false}', '{"host": "b", "unre']
    assert outcomes(lines) == {"a": True}


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
    ended, progress = follow(engine(tmp_path, status=status), stack="dev", verb="up", out=out)
    assert (ended, progress.failed) == (status, {"b"})
    lines = out.getvalue().splitlines()
    assert [line.split("s  ", 1)[1].split()[0] for line in lines if "  wave" not in line][:3] == [
        "create",
        "update",
        "FAILED",
    ]
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
            [sys.executable, "-m", "tools.follow", *words],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (asked.returncode, asked.stderr) == (2, "usage: tools/up STACK [OPTIONS OF pulumi up]\n")
