"""The real engine, with the stand-in (or the plugin that PULUMI_COMMAND_PLUGIN names) first on PATH."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engine.recorder import Workspace, open_workspace

CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Engine:
    """What the cases run with."""

    path: str
    cli: Path
    plugin: Path


@pytest.fixture(scope="session")
def engine() -> Engine:
    """Built where it is not in the cache yet, which takes minutes."""
    named = os.environ.get("PULUMI_COMMAND_PLUGIN")
    option = "--plugin" if named else "--stand-in"
    built = subprocess.run(
        [CHECKOUT / "tools/engine/build", option], stdout=subprocess.PIPE, text=True, check=True
    )
    first, plugin = (Path(folder) for folder in built.stdout.strip().split(os.pathsep))
    path = os.pathsep.join([f"{CHECKOUT}/.venv/bin", str(first), str(plugin), os.environ["PATH"]])
    return Engine(path=path, cli=first / "pulumi", plugin=plugin / "pulumi-resource-command")


@pytest.fixture(scope="session")
def empty_stack(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a workspace with an empty stack, to be copied."""
    return open_workspace(tmp_path_factory.mktemp("engine") / "empty", path=engine.path).folder


@pytest.fixture
def workspace(engine: Engine, empty_stack: Path, tmp_path: Path) -> Workspace:
    """A workspace for one test."""
    return open_workspace(tmp_path / "work", path=engine.path, template=empty_stack)
