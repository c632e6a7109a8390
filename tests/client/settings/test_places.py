"""Where an upstream answers, and what its models cost there."""

from __future__ import annotations

import pytest

from ai_client.ledger.prices import Prices
from ai_client.settings import loads
from ai_client.settings.places import costs_where_answered, is_regional


@pytest.mark.parametrize(
    ("base_url", "model", "expected"),
    [
        ("https://api.openai.com/v1", "gpt-5.4", False),
        ("https://eu.api.openai.com/v1", "gpt-5.4", True),
        ("https://us.api.openai.com:443/v1", "gpt-5.4", True),
        ("https://aiplatform.googleapis.com/v1/projects/p/locations/global/endpoints/openapi", "", False),
        ("https://aiplatform.googleapis.com/v1/projects/p/locations/eu/endpoints/openapi", "", True),
        ("https://aiplatform.us.rep.googleapis.com/v1/projects/p/locations/us/endpoints/openapi", "", True),
        ("https://us-east5-aiplatform.googleapis.com/v1/projects/p/locations/us-east5", "", True),
        ("https://bedrock-runtime.us-west-2.amazonaws.com/openai/v1", "global.anthropic.claude", False),
        ("https://bedrock-runtime.us-west-2.amazonaws.com/openai/v1", "us.anthropic.claude", True),
        ("https://bedrock-mantle.eu-west-1.api.aws/v1", "anthropic.claude", True),
        ("https://eu.api.openai.com.example.test/v1", "gpt-5.4", False),
        ("https://api.anthropic.com/v1", "claude-sonnet-4-6", False),
        ("http://127.0.0.1:8000/v1", "", False),
    ],
)
def test_a_base_url_tells_whether_one_place_answers(base_url: str, model: str, expected: bool) -> None:
    """As the providers' pages have their addresses."""
    assert is_regional(base_url, model) is expected


FILE = """
[api]
base_url = https://api.openai.com/v1
[upstream eu]
base_url = https://eu.api.openai.com/v1
models = small=gpt-5.4-mini, gpt-5.4
[upstream aws]
base_url = https://bedrock-runtime.us-west-2.amazonaws.com/openai/v1
models = anywhere=global.anthropic.claude, here=us.anthropic.claude
[model_costs]
gpt-5.4 = input=2.5, output=15, regional=1.1
eu/gpt-5.4 = input=2.5, output=15, cached_input=0.25, flex=0.5, long_from=1000, long=2, regional=1.1
eu/small = input=0.75, output=4.5
aws/anywhere = input=3, output=15, regional=1.1
aws/here = input=3, output=15, regional=1.1
* = input=30, output=180, regional=1.1
"""


def test_lines_of_upstreams_that_answer_in_one_place_are_paid_as_that_place_costs() -> None:
    """Its tiers and its long input, too; a line without `regional` says what is paid there already."""
    costs = costs_where_answered(loads(FILE, path="ai-client.conf"))
    assert costs["gpt-5.4"].input_usd_per_mtok == 2.5
    there = costs["eu/gpt-5.4"]
    assert (there.input_usd_per_mtok, there.output_usd_per_mtok, there.cached_input_usd_per_mtok) == (
        2.75,
        16.5,
        0.275,
    )
    assert there.long is not None
    assert there.long.input_usd_per_mtok == 5.5
    (_, flex), *_ = there.tiers
    assert flex.output_usd_per_mtok == 8.25
    assert costs["eu/small"].input_usd_per_mtok == 0.75
    assert (costs["aws/anywhere"].input_usd_per_mtok, costs["aws/here"].input_usd_per_mtok) == (3, 3.3)
    # Any upstream may be asked by the line of all others.
    assert Prices.from_settings(costs).of("eu/other").input_nusd == 33 * 10**9
