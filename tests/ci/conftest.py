"""A checkout that jobs run in."""

import pytest

from tests.fleet.clones import Clone, clone


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """Of a stack that is there and empty."""
    folder = tmp_path_factory.mktemp("ci")
    made = clone(folder / "checkout", state=folder / "state", stack="production")
    made.pulumi("stack", "init", "production")
    return made
