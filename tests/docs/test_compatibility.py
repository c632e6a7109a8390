"""The promises of docs/compatibility.md: what 1.0 had by name is still there."""

import json
import re

import pytest

from tests.docs.pages import text_of
from tests.docs.promises import WRITTEN, current
from tests.infra.stacks import PROJECT

PROMISED = json.loads(WRITTEN.read_text())


@pytest.mark.parametrize("kind", PROMISED)
def test_nothing_that_was_promised_is_gone(kind: str) -> None:
    """A configuration key, variable, option, metric or export can be added within 1.x, never taken away or renamed."""
    assert len(PROMISED[kind]) > 10
    assert sorted(set(PROMISED[kind]) - set(current()[kind])) == []


def test_every_promise_names_what_holds_it() -> None:
    """And that is there."""
    holders = re.findall(r"\| `(tests/[\w/.]+)` \|", text_of("docs/compatibility.md"))
    assert len(holders) == 7
    assert [path for path in holders if not (PROJECT / path).exists()] == []
