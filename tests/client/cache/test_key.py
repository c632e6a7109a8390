"""The cache key: equal only for requests that an upstream can't tell apart in its answer."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_client.cache.key import cache_key

CHAT: dict[str, Any] = {
    "model": "gpt-4.1",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
    "temperature": 0.2,
    "max_tokens": 50,
}

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
bodies = st.dictionaries(st.text(min_size=1, max_size=8), values, max_size=6)


def key_of(
    body: dict[str, Any],
    *,
    scope: str = "https://up/v1",
    tenant: str = "a",
    endpoint: str = "chat/completions",
    stream: bool = False,
) -> bytes | None:
    return cache_key(scope=scope, tenant=tenant, endpoint=endpoint, stream=stream, body=body)


def changed(**members: Any) -> dict[str, Any]:
    return {**CHAT, **members}


@pytest.mark.parametrize(
    "other",
    [
        changed(model="gpt-4.1-mini"),
        changed(temperature=0.3),
        changed(temperature=None),
        changed(max_tokens=51),
        changed(top_p=0.5),
        changed(seed=7),
        changed(n=2),
        changed(stop=["x"]),
        changed(logit_bias={"50256": -100}),
        changed(response_format={"type": "json_object"}),
        changed(tools=[{"type": "function", "function": {"name": "f"}}]),
        changed(a_parameter_of_next_year=True),
        changed(store=True),
        changed(stream_options={"include_usage": True}),
        changed(messages=[*CHAT["messages"], {"role": "user", "content": "Hello"}]),
        changed(messages=list(reversed(CHAT["messages"]))),
        changed(messages=[{"role": "system", "content": "Be brief.Hello"}]),
    ],
    ids=lambda body: str(sorted(set(body) - set(CHAT)) or "value"),
)
def test_everything_that_can_change_the_answer_changes_the_key(other: dict[str, Any]) -> None:
    """Known parameters, and those that this release has never heard of."""
    assert key_of(other) != key_of(CHAT)


@pytest.mark.parametrize(
    "label",
    [
        {"user": "u-1"},
        {"safety_identifier": "s-1"},
        {"prompt_cache_key": "p-1"},
        {"prompt_cache_retention": "24h"},
        {"metadata": {"run": "7"}},
        {"stream": False},
    ],
    ids=str,
)
def test_labels_that_can_not_change_the_answer_do_not_change_the_key(label: dict[str, Any]) -> None:
    """OpenAI's reference describes them as labels for abuse detection, prompt caching and stored completions.

    Of `stream` the request itself counts, whatever the body says.
    """
    assert key_of({**CHAT, **label}) == key_of(CHAT)


def test_metadata_of_a_stored_completion_is_a_part_of_the_key() -> None:
    """With `store` the upstream keeps the completion under its metadata: another call is another effect."""
    stored = changed(store=True, metadata={"run": "1"})
    assert key_of(stored) != key_of(changed(store=True, metadata={"run": "2"}))


@pytest.mark.parametrize(
    "where",
    [{"scope": "http://simulator/v1"}, {"tenant": "b"}, {"endpoint": "completions"}, {"stream": True}],
    ids=str,
)
def test_upstream_tenant_endpoint_and_kind_are_parts_of_the_key(where: dict[str, Any]) -> None:
    """A simulator's answer never comes back from production, one tenant's for another, or a stream's as a body."""
    assert key_of(CHAT, **where) != key_of(CHAT)


def test_tenant_and_endpoint_can_not_be_traded_for_each_other() -> None:
    """Parts are quoted, so that no two splits of one text are alike."""
    assert key_of(CHAT, tenant='a","x', endpoint="y") != key_of(CHAT, tenant="a", endpoint='x","y')


def test_the_order_of_a_schema_s_properties_is_a_part_of_the_key() -> None:
    """Models write properties in the order in which the schema declares them."""
    one = {"type": "json_schema", "json_schema": {"properties": {"a": {}, "b": {}}}}
    two = {"type": "json_schema", "json_schema": {"properties": {"b": {}, "a": {}}}}
    assert key_of(changed(response_format=one)) != key_of(changed(response_format=two))


def test_the_order_of_a_message_s_members_is_not() -> None:
    """`{"role", "content"}` and `{"content", "role"}` are one message."""
    turned = [dict(reversed(list(message.items()))) for message in CHAT["messages"]]
    assert key_of(changed(messages=turned)) == key_of(CHAT)


def test_a_whole_number_is_the_same_with_and_without_a_point() -> None:
    """`temperature: 0` and `temperature: 0.0` are one number in JSON; `true` is none."""
    assert key_of(changed(temperature=0)) == key_of(changed(temperature=0.0))
    assert key_of(changed(logprobs=1)) != key_of(changed(logprobs=True))


@pytest.mark.parametrize("body", [{"x": 1j}, {"x": "\ud83d"}, {"messages": [{1: 2, "1": 3}]}], ids=ascii)
def test_a_body_that_is_not_json_has_no_key(body: dict[str, Any]) -> None:
    """It can't be sent either; the transport says why."""
    assert key_of(body) is None


def test_a_body_nested_too_deeply_has_no_key() -> None:
    """No RecursionError reaches the caller."""
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    assert key_of({"input": nested}) is None


@given(bodies, st.randoms(use_true_random=False))
def test_the_order_of_the_body_s_members_never_matters(body: dict[str, Any], random: Any) -> None:
    """A JSON object is a set of members."""
    members = list(body.items())
    random.shuffle(members)
    assert key_of(dict(members)) == key_of(body)


@given(bodies)
def test_a_body_has_the_same_key_after_a_trip_through_json(body: dict[str, Any]) -> None:
    """The gateway gets bytes, the library objects: they must meet."""
    assert key_of(json.loads(json.dumps(body))) == key_of(body)


@given(bodies, bodies)
def test_two_bodies_that_differ_as_json_have_two_keys(one: dict[str, Any], two: dict[str, Any]) -> None:
    """Beyond labels, whole numbers and order: what `json.dumps` tells apart, the key does too."""
    ignored = {
        "user",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "metadata",
        "stream",
    }
    if _plain(one, ignored) != _plain(two, ignored):
        assert key_of(one) != key_of(two)


def _plain(body: dict[str, Any], ignored: set[str]) -> str:
    kept = {
        name: int(value) if type(value) is float and value.is_integer() else value
        for name, value in body.items()
        if name not in ignored
    }
    return json.dumps(kept, sort_keys=True)
