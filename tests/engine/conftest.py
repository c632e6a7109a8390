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


def provided(option: str) -> Engine:
    """Built where it is not in the cache yet, which takes minutes."""
    command = [CHECKOUT / "tools/engine/build", option]
    built = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    first, plugin = (Path(folder) for folder in built.stdout.strip().split(os.pathsep))
    path = os.pathsep.join([f"{CHECKOUT}/.venv/bin", str(first), str(plugin), os.environ["PATH"]])
    return Engine(path=path, cli=first / "pulumi", plugin=plugin / "pulumi-resource-command")


@pytest.fixture(scope="session")
def stand_in() -> Engine:
    """The engine with the stand-in, also where the real plugin is."""
    return provided("--stand-in")


@pytest.fixture(scope="session")
def engine(stand_in: Engine) -> Engine:
    """The engine with the plugin that PULUMI_COMMAND_PLUGIN names, else with the stand-in."""
    return provided("--plugin") if os.environ.get("PULUMI_COMMAND_PLUGIN") else stand_in


@pytest.fixture(scope="session")
def empty_stack(stand_in: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a workspace with an empty stack, to be copied."""
    return open_workspace(tmp_path_factory.mktemp("engine") / "empty", path=stand_in.path).folder


@pytest.fixture
def workspace(stand_in: Engine, empty_stack: Path, tmp_path: Path) -> Workspace:
    """A workspace for one test of the stand-in."""
    return open_workspace(tmp_path / "work", path=stand_in.path, template=empty_stack)
