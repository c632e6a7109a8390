"""Runs under one engine go a few at a time, whatever number of groups there is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra import engine_process, run_slots
from tests.infra.playbook.test_consent import ENGINE
from tests.infra.stacks import PROJECT

# Two slots. Each run says when it has one, and keeps it until its own standard input ends.
RUN = """
import os, sys
from infra import run_slots
loaded = sorted({"yaml", "pulumi", "ansible", "pydantic"}.intersection(sys.modules))
slot = run_slots.take(most=2)
print(*(loaded or ["in"]), flush=True)
os.read(int(sys.argv[1]), 1)
"""
# Seven runs beside each other, as the engine starts them; each ends as soon as it may read one byte.
ALL = 'exec 3<"$3"; for n in 1 2 3 4 5 6 7; do "$1" "$2" 3 & done; wait'


def test_as_many_as_there_are_slots_run_and_each_that_ends_lets_another_in(tmp_path: Path) -> None:
    """Who waits has loaded next to nothing; all are served in the end; the next engine sweeps what was left."""
    program, script, gate = tmp_path / "pulumi", tmp_path / "run.py", tmp_path / "gate"
    program.write_text(ENGINE)
    program.chmod(0o755)
    script.write_text(RUN)
    os.mkfifo(gate)
    argv = [
        str(program),
        "/bin/sh",
        "-c",
        f"{ALL}; true",
        "sh",
        sys.executable,
        str(script),
        str(gate),
    ]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE) as engine:
        assert engine.stdout is not None
        with gate.open("wb", buffering=0) as bytes_in:
            came = [engine.stdout.readline() for _ in range(2)]
            for _ in range(5):
                bytes_in.write(b"x")
                came.append(engine.stdout.readline())
            assert came == [b"in\n"] * 7
            slots = (tmp_path / ".local/state/ai-client-fleet/runs").iterdir()
            assert sorted(path.suffixes[0] for path in slots) == [".0", ".1"]
            bytes_in.write(b"xx")
            assert engine.stdout.read() == b""
    assert engine.returncode == 0


def test_who_waits_ends_with_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that nobody waits for must not change hosts later on."""
    engine = str(engine_process.identity_of(os.getpid()))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(engine_process, "identity", lambda: engine)
    held = run_slots.take(most=1)
    assert held is not None

    def ends(seconds: float) -> None:
        monkeypatch.setattr(engine_process, "identity", lambda: None)

    with pytest.raises(SystemExit):
        run_slots.take(most=1, wait=ends)
    os.close(held)
