"""Machines that can't be a control machine say so, before anything is looked at or made."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from infra import program
from infra.errors import MachineError
from tests.infra.stacks import KEY, PROJECT, load, shipped


def test_a_program_on_macos_ends_before_it_looks_at_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its runs are ended by what Linux alone has; the message says where it runs instead."""
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(sysname="Darwin", machine="arm64"))
    settings = load(shipped("production") | {"apiKey": KEY})
    with pytest.raises(MachineError, match=r"this machine: runs Darwin, .*; run Pulumi in a Linux container"):
        program.declare(settings)


@pytest.fixture
def as_darwin(tmp_path: Path) -> dict[str, str]:
    """An environment whose `uname` says that this is a Mac."""
    (tmp_path / "uname").write_text("#!/bin/sh\necho Darwin\n")
    (tmp_path / "uname").chmod(0o755)
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}


def test_setup_on_macos_says_where_the_clone_works(as_darwin: dict[str, str]) -> None:
    """It is the first thing that any command of a clone does."""
    command = [PROJECT / "tools/setup", "control"]
    done = subprocess.run(command, env=as_darwin, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("setup: this machine runs Darwin, and previews and deploys need a Linux")
    assert "docs/reference/support.md" in done.stderr
