"""Parts of a host's configuration that are not as usual stand there each by itself."""

import re
from typing import Any

import pytest

from infra.plan import render

OPTIONAL: dict[str, Any] = {
    "coordination": {"ai_coordination_endpoint": "rediss://quota.example:6379"},
    "traces": {"ai_traces_otlp_endpoint": "http://127.0.0.1:4318"},
    "cost_tags": {"ai_cost_tags": {"team": "shop"}},
}


def sections(**variables: Any) -> set[str]:
    inventory = {"all": {"children": {"web": {"hosts": {"one": {}}, "vars": variables}}}}
    text = render.files(render.host_variables(inventory, "one"))["/etc/ai-client/ai-client.conf"]
    lines = [line for line in text.splitlines() if line and not line.startswith(("#", "["))]
    assert all(" = " in line or line.endswith(" =") for line in lines), "every line is a key, or a section"
    return set(re.findall(r"(?m)^\[(\w+)\]$", text))


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_section_that_is_not_usual_needs_no_other(name: str) -> None:
    """It is there with its own variable alone, and not without it."""
    assert sections(**OPTIONAL[name]) - sections() == {name}
