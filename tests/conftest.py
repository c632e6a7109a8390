"""How the tests are shared out where several processes run them (`-n 2 --dist loadscope`, as `tools/test` does)."""

import os

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# Their files share hosts, which one process boots once. The first takes longest by far, so it begins.
_TOGETHER = ("fleet", "ansible", "tools")


class _ByRoom(LoadScopeScheduling):
    """What shares a room stays in one process and in its order: a folder whose files share hosts, or a file."""

    def _split_scope(self, nodeid: str) -> str:
        return _room(nodeid)


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
    return folder if folder in _TOGETHER else path


def _rank(room: str) -> int:
    return _TOGETHER.index(room) if room in _TOGETHER else len(_TOGETHER)
