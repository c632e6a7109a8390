"""How the tests are shared out where several processes run them (`-n 2 --dist loadscope`, as `tools/test` does)."""

import os
import signal
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.hosts_of_run import begin_run, end_run

# Fixtures of several folders.
pytest_plugins = ["tests.aws_server"]

# Files that share hosts, which one process boots once: those of the one stack, and two folders.
_STACK = {"life", "changes", "roll_out", "day_two", "end"}
_FOLDERS = ("ansible", "tools")
# What takes long begins, the longest first, so that all processes end at about the same time.
_LONGEST = (
    "stack",
    "tests/fleet/test_pages.py",
    "ansible",
    "tests/docs/test_team_pages.py",
    "tests/fleet/test_upgrade.py",
    "tests/fleet/test_shared_state.py",
    "tests/fleet/test_departure.py",
    "tools",
)


class _ByRoom(LoadScopeScheduling):
    """What shares a room stays in one process and in its order: a folder whose files share hosts, or a file."""

    def _split_scope(self, nodeid: str) -> str:
        return _room(nodeid)


def pytest_configure(config: pytest.Config) -> None:
    """However a run is ended, what it started is ended."""
    if begin_run():
        signal.signal(signal.SIGTERM, lambda *_: pytest.exit("ended by a signal"))
        config.add_cleanup(end_run)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Called by the plugin that shares out."""
    return _ByRoom(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, where others can run beside it."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: _rank(_room(item.nodeid)))


def _room(nodeid: str) -> str:
    path = nodeid.split("::", 1)[0]
    folder = path.split("/")[1]
    if folder == "fleet" and Path(path).stem.removeprefix("test_") in _STACK:
        return "stack"
    return folder if folder in _FOLDERS else path


def _rank(room: str) -> int:
    return _LONGEST.index(room) if room in _LONGEST else len(_LONGEST)
