"""How the tests are shared out where several processes run them (`-n 2 --dist loadgroup`, as `tools/test` does)."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
# Their files share hosts, which one process boots once. The first takes longest by far, so it begins.
_TOGETHER = ("fleet", "ansible", "tools")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A group stays in one process and in its order: a folder whose files share hosts, or a file."""
    if not config.getoption("numprocesses", None):
        return
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    items.sort(key=_rank)


def _group(item: pytest.Item) -> str:
    place = item.path.relative_to(HERE)
    return place.parts[0] if place.parts[0] in _TOGETHER else str(place)


def _rank(item: pytest.Item) -> int:
    group = _group(item)
    return _TOGETHER.index(group) if group in _TOGETHER else len(_TOGETHER)
