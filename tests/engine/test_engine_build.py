"""tools/engine/build finds or builds the engine once, whatever is killed, missing or full meanwhile."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from tests.engine.fake_programs import CHECKOUT, Machine, write_program
from tools.engine.provision import cache, golang, plugin
from tools.engine.provision.errors import EngineError
from tools.engine.provision.progress import Progress

MODULE = CHECKOUT / "tools/engine/pulumi"
DEADLINE_S = 20.0


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine without Go and without Pulumi."""
    return Machine(tmp_path)


def wait_until(condition: Callable[[], bool], *, what: str) -> None:
    """Polls a condition that another process makes true."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"{what}: not within {DEADLINE_S:.0f} s"
        time.sleep(0.02)


def add_gate(machine: Machine) -> Path:
    """Makes Go's builds wait until somebody writes to the gate."""
    gate = machine.go_folder / "gate"
    os.mkfifo(gate)
    return gate


def waiting_go(machine: Machine) -> int:
    """The process id of the Go build that waits at the gate."""
    waiting = machine.go_folder / "waiting"
    wait_until(lambda: waiting.exists() and waiting.read_text().endswith("\n"), what="a Go build")
    return int(waiting.read_text().split()[-1])


def is_running(pid: int) -> bool:
    """Whether a process is there and more than a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def entries(machine: Machine) -> list[str]:
    """What is in the cache beside locks."""
    folder = cache.root(machine.environ)
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_a_build_lays_all_four_programs_into_one_folder(machine: Machine) -> None:
    """CLI and language host from our modules, the two scripts from the SDK's sources; one line on stdout."""
    done = machine.add_go().build()
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    names = [
        "pulumi",
        "pulumi-language-python",
        "pulumi-language-python-exec",
        "pulumi-resource-pulumi-python",
    ]
    assert sorted(path.name for path in Path(line).iterdir()) == names
    assert all(os.access(Path(line) / name, os.X_OK) for name in names)
    assert "building pulumi from source" in done.stderr


def test_a_second_build_prints_the_same_line_and_builds_nothing(machine: Machine) -> None:
    """The cache is keyed by content, so nothing is to be done and nothing is said."""
    first = machine.add_go().build()
    built = machine.go_calls("build")
    second = machine.build()
    assert (second.returncode, second.stdout, second.stderr) == (0, first.stdout, "")
    assert machine.go_calls("build") == built == 2


def test_another_go_makes_another_engine(machine: Machine) -> None:
    """What comes out depends on the compiler, so it is part of the key."""
    first = machine.add_go("go1.98.0").build()
    second = machine.add_go("go1.99.0").build()
    assert first.stdout != second.stdout


def test_a_changed_stand_in_does_not_rebuild_the_engine(tmp_path: Path) -> None:
    """Each has its own key; tests and other files beside the sources are in neither."""
    go = golang.Go(program="go", version="go1.99.0", platform="linux/amd64")
    module = tmp_path / "module"
    module.mkdir()
    (module / "main.go").write_text("package main\n")
    (module / "go.mod").write_text("module x\n\ngo 1.26.6\n")
    before = golang.digest([module], go=go, recipe="r")
    (module / "main_test.go").write_text("package main\n")
    (module / "notes.txt").write_text("x")
    assert golang.digest([module], go=go, recipe="r") == before
    (module / "main.go").write_text("package main // changed\n")
    assert golang.digest([module], go=go, recipe="r") != before


def test_a_signal_that_comes_as_go_is_started_ends_go_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Go runs before `Popen` has returned, and nobody knows its process yet."""
    started: list[int] = []

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *words: Any, **options: Any) -> None:
            super().__init__(*words, **options)
            started.append(self.pid)
            signal.raise_signal(signal.SIGTERM)

    def end(number: int, _: object) -> None:
        sys.exit(128 + number)

    monkeypatch.setattr(golang.subprocess, "Popen", Interrupted)
    usual = signal.signal(signal.SIGTERM, end)
    try:
        with Progress(StringIO()).step("sleeping") as step, pytest.raises(SystemExit):
            golang._run(["sleep", "60"], folder=tmp_path, environ=dict(os.environ), step=step)
        assert signal.getsignal(signal.SIGTERM) is end
    finally:
        signal.signal(signal.SIGTERM, usual)
    assert [pid for pid in started if is_running(pid)] == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_build_leaves_nothing_that_breaks_the_next(machine: Machine, number: signal.Signals) -> None:
    """Half of a build is never taken for a whole one, and the lock ends with its holder."""
    gate = add_gate(machine.add_go())
    with machine.start() as first:
        go_pid = waiting_go(machine)
        first.send_signal(number)
        stdout, _ = first.communicate(timeout=DEADLINE_S)
    assert first.returncode != 0
    assert stdout == ""
    if number is signal.SIGKILL:
        os.kill(go_pid, signal.SIGKILL)  # nobody else could
    wait_until(lambda: not is_running(go_pid), what="the end of the Go build")
    gate.unlink()
    done = machine.build()
    assert done.returncode == 0, done.stderr
    assert entries(machine) == [Path(done.stdout.strip()).parent.name]


def test_a_second_build_at_once_waits_for_the_first(machine: Machine) -> None:
    """Both end with the same folder, which was built once."""
    gate = add_gate(machine.add_go())
    with machine.start() as first:
        waiting_go(machine)
        with machine.start() as second:
            assert second.stderr is not None
            assert second.stderr.readline() == "engine: another build runs; waiting\n"
            waiting = gate.rename(gate.with_name("opened"))
            waiting.write_text("go\n")
            lines = {process.communicate(timeout=DEADLINE_S)[0] for process in (first, second)}
    assert len(lines) == 1
    assert machine.go_calls("build") == 2


@pytest.mark.parametrize("version", ["go1.19.8", "go1.26.5"])
def test_an_old_go_is_named_with_the_remedy(machine: Machine, version: str) -> None:
    """The message says what is too old, what is needed, and the other way out."""
    done = machine.add_go(version).build()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"engine: {machine.go_folder}/go: is {version}, too old: the engine's modules need go1.26.6; "
        "install Go 1.26.6 or newer and put it on PATH, or install the Pulumi CLI 3.200 or newer\n"
    )


def test_an_old_go_that_may_fetch_a_newer_one_is_good(machine: Machine) -> None:
    """From 1.21 on, Go takes the toolchain that go.mod asks for, where it may."""
    machine.add_go()
    script = (
        '#!/bin/sh\n[ "$GOTOOLCHAIN" = local ] && v=go1.22.0 || v=go1.26.6\nprintf "$v\\nlinux\\namd64\\n"\n'
    )
    write_program(machine.go_folder / "go", script)
    assert golang.find(MODULE, environ=machine.environ).version == "go1.26.6"
    with pytest.raises(EngineError, match=r"is go1\.22\.0, too old"):
        golang.find(MODULE, environ={**machine.environ, "GOTOOLCHAIN": "local"})


def test_a_machine_without_go_is_told_so(machine: Machine) -> None:
    """Neither on PATH nor in the place where Go's own archive puts it."""
    with pytest.raises(EngineError) as raised:
        golang.find(MODULE, environ={"PATH": str(machine.folder)}, usual_place=str(machine.folder))
    assert str(raised.value) == (
        "go: not on PATH, and it builds the Pulumi engine (once); "
        "install Go 1.26.6 or newer and put it on PATH, or install the Pulumi CLI 3.200 or newer"
    )


@pytest.mark.parametrize(
    ("printed", "remedy"),
    [
        ("write /tmp/x: no space left on device", "free 3 GB"),
        ("dial tcp: lookup proxy.invalid: no such host", "GOPROXY"),
        ("main.go:1:1: syntax error", "see what Go says above"),
    ],
)
def test_a_failed_build_shows_what_go_said_and_the_remedy(
    machine: Machine, printed: str, remedy: str
) -> None:
    """No space, no network, anything else: each with its own way out; nothing half-made stays."""
    (machine.add_go().go_folder / "failure").write_text(f"{printed}\n")
    done = machine.build()
    assert (done.returncode, done.stdout) == (1, "")
    assert printed in done.stderr
    assert remedy in done.stderr
    assert "Traceback" not in done.stderr
    assert entries(machine) == []


def test_a_full_disk_is_named_with_the_folder(tmp_path: Path) -> None:
    """Our own writes fail as clearly as Go's."""

    def fill(_: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(EngineError, match="No space left on device; free 3 GB there") as raised:
        cache.ensure(tmp_path / "engine" / "digest", make=fill)
    assert raised.value.culprit == str(tmp_path / "engine")
    assert [path.name for path in (tmp_path / "engine").iterdir()] == ["digest.lock"]


def test_a_cache_that_cannot_be_written_is_named(machine: Machine) -> None:
    """A file where the folder should be: the error names it and the variable that moves it."""
    machine.add_go()
    machine.cache.write_text("")
    done = machine.build()
    assert done.returncode == 1
    assert str(machine.cache) in done.stderr
    assert "XDG_CACHE_HOME" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_recent_pulumi_on_path_is_used_instead(machine: Machine) -> None:
    """Nothing is built, so Go is not needed either."""
    done = machine.add_pulumi("v3.200.0").build()
    assert (done.returncode, done.stdout) == (0, f"{machine.pulumi_folder}\n")


@pytest.mark.parametrize(
    ("version", "has_language_host", "reason"),
    [
        ("v3.199.0", True, "older than 3.200"),
        ("v3.250.0", False, "pulumi-language-python, pulumi-language-python-exec is not beside it"),
        ("?", True, "or not working"),
    ],
)
def test_a_pulumi_that_does_not_do_is_passed_over_with_the_reason(
    machine: Machine, version: str, has_language_host: bool, reason: str
) -> None:
    """Too old, without its language host, or broken: our own build serves."""
    machine.add_go().add_pulumi(version, has_language_host=has_language_host)
    done = machine.build()
    assert done.returncode == 0
    assert done.stdout.startswith(str(machine.cache))
    assert reason in done.stderr


def test_our_own_build_on_path_is_not_taken_for_an_installed_one(machine: Machine) -> None:
    """A command inside tools/env finds the same engine as outside."""
    first = machine.add_go().build()
    machine.environ["PATH"] = f"{first.stdout.strip()}:{machine.environ['PATH']}"
    assert machine.build().stdout == first.stdout


def test_without_the_option_no_plugin_is_settled(machine: Machine) -> None:
    """A deploy to other machines never sees the stand-in."""
    done = machine.add_go().build()
    assert not list(cache.root(machine.environ).glob("*/bin/pulumi-resource-command"))
    assert os.pathsep not in done.stdout


def test_a_plugin_named_by_the_user_serves_under_its_proper_name(machine: Machine) -> None:
    """Whatever the file is called, the engine finds it."""
    named = write_program(machine.folder / "my-plugin", "#!/bin/sh\n")
    machine.environ["PULUMI_COMMAND_PLUGIN"] = str(named)
    _, folder = machine.add_pulumi("v3.250.0").build("--plugin").stdout.strip().split(os.pathsep)
    assert (Path(folder) / plugin.NAME).resolve() == named
    named.unlink()
    done = machine.build("--plugin")
    assert done.returncode == 1
    assert f"PULUMI_COMMAND_PLUGIN={named}: is not an executable file; name a" in done.stderr


def test_the_real_plugin_is_left_to_the_engine(machine: Machine) -> None:
    """Installed in PULUMI_HOME: nothing more belongs on PATH, even where the stand-in could be built."""
    write_program(
        machine.home / ".pulumi/plugins/resource-command-v1.2.1/pulumi-resource-command", "#!/bin/sh\n"
    )
    done = machine.add_go().add_pulumi("v3.250.0").build("--plugin")
    assert (done.stdout, done.stderr) == (f"{machine.pulumi_folder}\n", "")


def test_a_plugin_half_installed_is_not_taken_for_one(machine: Machine) -> None:
    """The engine marks an installation that is under way, or was killed."""
    plugins = machine.home / ".pulumi/plugins"
    write_program(plugins / "resource-command-v1.2.1/pulumi-resource-command", "#!/bin/sh\n")
    (plugins / "resource-command-v1.2.1.partial").touch()
    assert not plugin.is_installed(machine.environ)


def test_a_failed_download_is_remembered_and_the_stand_in_serves(machine: Machine) -> None:
    """Only the first start of a day waits, and says what serves; the stand-in says it of itself on every start."""
    machine.add_go().add_pulumi("v3.250.0")
    del machine.environ["AI_CLIENT_FLEET_OFFLINE"]
    first, second = machine.build("--plugin"), machine.build("--plugin")
    assert first.stdout == second.stdout
    assert (Path(first.stdout.strip().split(os.pathsep)[1]) / plugin.NAME).is_file()
    assert ["the project's stand-in serves" in done.stderr for done in (first, second)] == [True, False]
    calls = (machine.pulumi_folder / "calls").read_text().splitlines()
    assert calls.count("plugin install resource command 1.2.1") == 1
    [remembered] = cache.root(machine.environ).glob("no-download-*")
    yesterday_s = time.time() - plugin.REMEMBERED_S - 1
    os.utime(remembered, (yesterday_s, yesterday_s))
    machine.build("--plugin")
    calls = (machine.pulumi_folder / "calls").read_text().splitlines()
    assert calls.count("plugin install resource command 1.2.1") == 2


def test_offline_nothing_is_downloaded(machine: Machine) -> None:
    """AI_CLIENT_FLEET_OFFLINE=1 goes to the stand-in at once."""
    machine.add_go().add_pulumi("v3.250.0", install="exit 0")
    assert machine.build("--plugin").stdout.count(os.pathsep) == 1
    assert "plugin" not in (machine.pulumi_folder / "calls").read_text()


def test_a_download_that_works_needs_no_stand_in(machine: Machine) -> None:
    """The engine has the real plugin then."""
    machine.add_pulumi("v3.250.0", install="exit 0")
    del machine.environ["AI_CLIENT_FLEET_OFFLINE"]
    assert machine.build("--plugin").stdout == f"{machine.pulumi_folder}\n"


def test_a_download_that_hangs_is_given_up(machine: Machine) -> None:
    """The wait is bounded, and the step is shown."""
    machine.add_pulumi("v3.250.0", install="exec tail -f /dev/null")
    del machine.environ["AI_CLIENT_FLEET_OFFLINE"]
    shown = StringIO()
    is_done = plugin.download(
        machine.pulumi_folder, environ=machine.environ, progress=Progress(shown), timeout_s=0.3
    )
    assert not is_done
    assert "downloading the command plugin 1.2.1" in shown.getvalue()


def test_a_terminal_sees_a_live_line_and_a_log_a_line_per_step() -> None:
    """The live line is written over; a log has whole lines and a heartbeat a minute at most."""

    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    terminal, log = Terminal(), StringIO()
    for stream in (terminal, log):
        with Progress(stream).step("building x") as step:
            step.beat("7 packages compiled")
    assert "\r\x1b[Kengine: building x, 0 s, 7 packages compiled" in terminal.getvalue()
    assert terminal.getvalue().count("\n") == 1
    assert log.getvalue() == "engine: building x …\nengine: building x: took 0 s\n"


@pytest.mark.engine
def test_a_real_go_module_is_built(tmp_path: Path, machine: Machine) -> None:
    """The calls of Go are right: a module of one file becomes a program that runs."""
    module = tmp_path / "module"
    module.mkdir()
    (module / "go.mod").write_text("module hello\n\ngo 1.21\n")
    (module / "main.go").write_text('package main\n\nfunc main() { println("hello") }\n')
    environ = dict(os.environ)
    go = golang.find(module, environ=environ)
    program = golang.Program(module=module, package=".", name="hello")
    with Progress(StringIO()).step("hello") as step:
        golang.build(program, into=tmp_path, go=go, environ=environ, step=step)
    ran = subprocess.run([tmp_path / "hello"], capture_output=True, text=True, check=True)
    assert ran.stderr == "hello\n"


@pytest.mark.engine
def test_the_real_engine_is_found_again_within_two_seconds(stand_in: object) -> None:
    """`make up` asks each time."""
    started_s = time.monotonic()
    done = subprocess.run(
        [CHECKOUT / "tools/engine/build"], capture_output=True, text=True, check=True, timeout=60
    )
    assert time.monotonic() - started_s < 2
    assert done.stderr == ""
    version = subprocess.run(
        [Path(done.stdout.strip()) / "pulumi", "version"], capture_output=True, text=True, check=True
    )
    assert tuple(map(int, version.stdout.strip().lstrip("v").split("."))) >= (3, 200)
