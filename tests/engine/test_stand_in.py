"""What the record does not hold: long lines, cancel and timeout, previews, refresh, and what the stand-in refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engine.conftest import CHECKOUT, Engine
from tests.engine.recorder import COMMAND_TYPE, Workspace, diagnostics, operations

pytestmark = pytest.mark.engine

LONG_LINE = "head -c 300000 /dev/zero | tr '\\0' x; echo; echo after"
DEADLINE_S = 30.0


def wait_until(condition: Callable[[], bool], *, what: str) -> None:
    """Polls a condition that another process makes true."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"{what}: not within {DEADLINE_S:.0f} s"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether a process is there and more than a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children_of(pid: int) -> list[int]:
    """The processes that this one started, whichever of its threads did."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


@contextmanager
def running_up(workspace: Workspace) -> Iterator[subprocess.Popen[str]]:
    """An `up` that is under way; ended with what it started if the test leaves it."""
    command = ["pulumi", "up", "--yes", "--skip-preview", "--json", "--non-interactive"]
    process = subprocess.Popen(
        command, cwd=workspace.folder, env=workspace.environ, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def commands_in(workspace: Workspace) -> list[dict[str, object]]:
    """The commands in state."""
    return [resource for resource in workspace.resources() if resource["type"] == COMMAND_TYPE]


def test_a_line_over_64_kib_does_not_hang_with_default_logging(workspace: Workspace) -> None:
    """The real plugin hangs here for good; the stand-in shows and keeps the line, and what comes after it."""
    workspace.declare({"create": LONG_LINE})
    done = workspace.up()
    assert done.returncode == 0
    assert list(diagnostics(done.stdout, folder=workspace.folder)) == [f"info: {'x' * 300000}", "info: after"]
    [command] = commands_in(workspace)
    assert command["outputs"]["stdout"] == "x" * 300000 + "\nafter"


def test_an_interrupt_of_the_engine_kills_the_program_that_was_execd(workspace: Workspace) -> None:
    """SIGINT cancels: the command dies, the error says so, and nothing of it stays in state."""
    workspace.declare({"create": 'echo $$ > "$LOG"; exec tail -f /dev/null'})
    with running_up(workspace) as up:
        wait_until(lambda: workspace.log.read_text().endswith("\n"), what="the command's start")
        pid = int(workspace.log.read_text())
        up.send_signal(signal.SIGINT)
        events, _ = up.communicate(timeout=DEADLINE_S)
    assert up.returncode != 0
    assert any("signal: killed: running" in line for line in diagnostics(events, folder=workspace.folder))
    assert not is_running(pid)
    assert commands_in(workspace) == []


def test_a_custom_timeout_kills_the_command(workspace: Workspace) -> None:
    """The engine's `customTimeouts` bound a command; it dies with the error of a killed one."""
    workspace.declare({"create": 'echo $$ > "$LOG"; exec tail -f /dev/null', "create_timeout": "1s"})
    done = workspace.up()
    assert done.returncode != 0
    said = list(diagnostics(done.stdout, folder=workspace.folder))
    assert any("signal: killed: running" in line for line in said), said
    assert not is_running(int(workspace.log.read_text()))


def test_a_killed_engine_leaves_no_plugin_and_no_command(workspace: Workspace, stand_in: Engine) -> None:
    """`kill -9` of the engine: the plugin sees its connection end, kills the command and ends itself."""
    workspace.declare({"create": 'echo $$ $PPID > "$LOG"; exec tail -f /dev/null'})
    with running_up(workspace) as up:
        wait_until(lambda: workspace.log.read_text().endswith("\n"), what="the command's start")
        command, plugin = map(int, workspace.log.read_text().split())
        assert Path(f"/proc/{plugin}/exe").resolve() == stand_in.plugin.resolve()
        language_hosts = [pid for pid in children_of(up.pid) if pid != plugin]
        up.kill()
        wait_until(lambda: not is_running(command) and not is_running(plugin), what="their end")
        for pid in filter(is_running, language_hosts):
            os.kill(pid, signal.SIGTERM)  # it would see only minutes later that its engine is gone


def test_a_preview_runs_nothing_and_knows_no_output(workspace: Workspace) -> None:
    """Neither the creation nor the update of a command runs in a preview."""
    workspace.declare({"create": 'echo ran >> "$LOG"'})
    assert workspace.pulumi("preview", "--json").returncode == 0
    assert workspace.log.read_text() == ""
    assert workspace.up().returncode == 0
    workspace.declare({"create": 'echo ran again >> "$LOG"'})
    done = workspace.pulumi("preview", "--json")
    steps = [step for step in json.loads(done.stdout)["steps"] if COMMAND_TYPE in step["urn"]]
    assert [(step["op"], step["diffReasons"]) for step in steps] == [("update", ["create"])]
    assert workspace.log.read_text() == ""


def test_a_refresh_reads_nothing_and_changes_nothing(workspace: Workspace) -> None:
    """State is all that a command has: a refresh leaves it, and the next run is still without change."""
    workspace.declare({"create": 'echo ran >> "$LOG"'})
    assert workspace.up().returncode == 0
    before = commands_in(workspace)[0]["outputs"]
    assert workspace.pulumi("refresh", "--yes", "--skip-preview").returncode == 0
    assert commands_in(workspace)[0]["outputs"] == before
    done = workspace.up()
    assert list(operations(done.stdout)) == ["same"]


def test_an_ignored_variable_changes_nothing_until_it_is_not_ignored(workspace: Workspace) -> None:
    """The program re-runs a command only on drift so: a nonce in the environment, ignored or not."""
    create = 'echo "$NONCE" >> "$LOG"'
    ignored = ["environment.NONCE"]
    seen = []
    for nonce, ignore in (("1", ignored), ("2", ignored), ("2", []), ("3", ignored)):
        workspace.declare(
            {"create": create, "environment": {"NONCE": nonce, "FIXED": "x"}, "ignore_changes": ignore}
        )
        done = workspace.up()
        assert done.returncode == 0
        seen.append((list(operations(done.stdout)), workspace.log.read_text().split()))
    assert seen == [(["create"], ["1"]), (["same"], []), (["update"], ["2"]), (["same"], [])]


def test_a_command_runs_in_the_project_folder_wherever_the_engine_was_started(workspace: Workspace) -> None:
    """Inputs stay portable: a relative path in a command means the folder of Pulumi.yaml."""
    below = workspace.folder / "below"
    below.mkdir()
    workspace.declare({"create": 'pwd >> "$LOG"'})
    command = ["pulumi", "up", "--yes", "--skip-preview", "--non-interactive"]
    subprocess.run(command, cwd=below, env=workspace.environ, capture_output=True, check=True)
    assert workspace.log.read_text() == f"{workspace.folder}\n"


def test_every_start_says_that_it_is_the_stand_in(workspace: Workspace) -> None:
    """Nobody may take it for the real plugin: preview and update both say it, beside the stack."""
    workspace.declare({"create": "true"})
    for action in ("preview", "up"):
        done = workspace.pulumi(action, *(["--yes", "--skip-preview"] if action == "up" else []))
        assert "this is the stand-in for the command plugin 1.2.1" in done.stdout


def test_what_the_stand_in_cannot_do_is_refused_with_the_remedy(workspace: Workspace) -> None:
    """remote.Command fails by its name, and the message says how to get the real plugin."""
    (workspace.folder / "__main__.py").write_text(
        "from pulumi_command import remote\n"
        "remote.Command('c', connection={'host': 'none.invalid'}, create='true')\n"
    )
    done = workspace.pulumi("preview")
    assert done.returncode != 0
    assert "command:remote:Command is not in the stand-in for the command plugin" in done.stdout
    assert "pulumi plugin install resource command 1.2.1" in done.stdout


def test_the_plugin_starts_within_50_milliseconds(stand_in: Engine) -> None:
    """Each preview starts it; the best of many, so that a busy machine does not decide."""
    seconds = []
    for _ in range(20):
        started_s = time.perf_counter()
        with subprocess.Popen([stand_in.plugin], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as plugin:
            assert plugin.stdout is not None
            assert int(plugin.stdout.readline()) > 0
            seconds.append(time.perf_counter() - started_s)
            plugin.kill()
    assert min(seconds) < 0.05


def test_the_modules_own_tests_pass() -> None:
    """Diff paths and kinds, globs, types, and that a cancel kills the interpreter alone."""
    go = shutil.which("go", path=f"{os.environ['PATH']}:/usr/local/go/bin")
    assert go is not None
    folder = CHECKOUT / "tools/engine/command"
    done = subprocess.run([go, "test", "./..."], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("how", ["taken out of the program", "destroy"])
@pytest.mark.parametrize("stdin", ["line one\nline two\n", "secret:line one\nline two\n"])
def test_a_delete_gets_the_recorded_standard_input(workspace: Workspace, how: str, stdin: str) -> None:
    """A claim's delete reads from it what to clean up: the last one that was applied, secret or not."""
    workspace.declare({"create": "cat >/dev/null", "delete": 'cat >> "$LOG"', "stdin": "first\n"})
    assert workspace.up().returncode == 0
    workspace.declare({"create": "cat >/dev/null", "delete": 'cat >> "$LOG"', "stdin": stdin})
    assert workspace.up().returncode == 0
    if how == "destroy":
        done = workspace.pulumi("destroy", "--yes", "--skip-preview")
    else:
        workspace.declare(None)
        done = workspace.up()
    assert done.returncode == 0, done.stdout
    assert workspace.log.read_text() == "line one\nline two\n"
    assert commands_in(workspace) == []
