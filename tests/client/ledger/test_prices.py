"""Prices: exact, and upper bounds that hold."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_client.contract.request import UNTOLD_REGION, Usage
from ai_client.ledger.prices import Price, Prices, dollars_to_nusd, nusd_to_dollars
from ai_client.settings import LIST_PRICES, ModelPrice
from ai_client.settings.prices import price_of

tokens = st.integers(min_value=0, max_value=10_000_000)
nano_prices = st.integers(min_value=0, max_value=1_000 * 10**9)
maybe_prices = st.none() | nano_prices
tier_prices = st.builds(
    Price,
    input_nusd=nano_prices,
    output_nusd=nano_prices,
    cached_input_nusd=nano_prices,
    cache_write_nusd=maybe_prices,
    reasoning_nusd=maybe_prices,
    request_nusd=nano_prices,
    image_nusd=maybe_prices,
    search_nusd=maybe_prices,
)
flat_prices = st.builds(Price, input_nusd=nano_prices, output_nusd=nano_prices, cached_input_nusd=nano_prices)
tiers = st.dictionaries(st.sampled_from(["flex", "priority"]), tier_prices)
prices = st.builds(replace, tier_prices, tiers=tiers)


@pytest.mark.parametrize(
    ("model", "cost_usd"),
    [
        ("gpt-4.1", "0.012"),
        ("claude-sonnet-4.5", "0.0225"),
        ("gemini-2.5-flash", "0.00375"),
        ("deepseek-v3.2", "0.00063"),
    ],
)
def test_a_thousand_tokens_in_and_five_hundred_out_cost_the_list_price(model: str, cost_usd: str) -> None:
    """The list prices of the configuration are dollars per million tokens."""
    nusd = Prices.from_settings(LIST_PRICES).of(model).cost_nusd(Usage(1_000, 500))
    assert nusd_to_dollars(nusd) == Decimal(cost_usd)


def test_cached_input_is_a_part_of_the_input_with_a_price_of_its_own() -> None:
    """300 of 1,000 input tokens at the cached price, 700 at the full one."""
    price = Prices.from_settings({"m": ModelPrice(2.0, 8.0, 0.5)}).of("m")
    cost = price.cost_nusd(Usage(1_000, 10, 300))
    assert cost == 700 * 2_000 + 300 * 500 + 10 * 8_000


def test_an_unlisted_model_is_priced_as_the_dearest() -> None:
    """Whatever the upstream takes for it, a budget must not count it as free."""
    listed = Prices.from_settings(LIST_PRICES)
    assert "gpt-9" not in listed
    assert listed.of("gpt-9") == listed.of("claude-sonnet-4.5")


def test_an_empty_price_list_prices_everything_at_nothing() -> None:
    """Users who count no costs configure no prices; that is no error."""
    assert Prices({}).of("any").cost_nusd(Usage(10**6, 10**6)) == 0


@pytest.mark.parametrize("broken", [(-5, 10, 0), (10, -5, 0), (10, 10, 50), (10, 10, -3)])
def test_a_broken_usage_block_never_credits_money(broken: tuple[int, int, int]) -> None:
    """Negative counts count as none; more cached tokens than input ones are all of the input."""
    read, written, cached = broken
    price = Price(input_nusd=2 * 10**9, output_nusd=8 * 10**9, cached_input_nusd=10**9)
    cost = price.cost_nusd(Usage(read, written, cached))
    sane = price.cost_nusd(Usage(max(read, 0), max(written, 0), min(max(cached, 0), max(read, 0))))
    assert cost == sane >= 0


@given(flat_prices, tokens, tokens, tokens)
def test_the_cost_is_the_exact_one_rounded_up_to_a_nano_dollar(
    price: Price, read: int, written: int, cached: int
) -> None:
    """Compared with rational arithmetic: never less, and less than one nano-dollar more."""
    cached = min(cached, read)
    exact = Decimal(
        (read - cached) * price.input_nusd + cached * price.cached_input_nusd + written * price.output_nusd
    ) / Decimal(10**6)
    cost = price.cost_nusd(Usage(read, written, cached))
    assert exact <= cost < exact + 1


@given(prices, tokens, tokens, st.data())
def test_no_call_within_the_bounds_costs_more_than_the_upper_bound(
    price: Price, read: int, written: int, data: st.DataObject
) -> None:
    """Whatever part is cached, stored or reasoning, whichever tier answers, and however few tokens come back."""
    images, searches = data.draw(st.integers(0, 50)), data.draw(st.integers(0, 50))
    bound = price.upper_bound_nusd(Usage(read, written, images=images, searches=searches))
    actual_read = data.draw(st.integers(0, read))
    actual_written = data.draw(st.integers(0, written))
    usage = Usage(
        actual_read,
        actual_written,
        data.draw(st.integers(0, actual_read)),
        cache_write_tokens=data.draw(st.integers(0, actual_read)),
        reasoning_tokens=data.draw(st.integers(0, actual_written)),
        images=data.draw(st.integers(0, images)),
        searches=data.draw(st.integers(0, searches)),
        tier=data.draw(st.sampled_from(["", "default", *price.tiers])),
    )
    assert price.cost_nusd(usage) <= bound


@st.composite
def lines(draw: st.DrawFn) -> str:
    """A line of `[model_costs]`, with tiers and prices of long inputs in every way of writing them."""
    kinds = (
        "input",
        "output",
        "cached_input",
        "cache_write",
        "cache_write_1h",
        "reasoning",
        "audio_input",
        "image_input",
        "cached_image_input",
        "image_output",
        "image",
        "minute",
        "characters",
    )
    numbers = st.sampled_from(["0", "0.1", "0.7", "1.8", "3", "12.34", "0.0000000007", "2.0000000001"])
    said = {"input": draw(numbers), **draw(st.dictionaries(st.sampled_from(kinds), numbers))}
    tiers = draw(st.lists(st.sampled_from(["flex", "priority"]), unique=True))
    is_long = draw(st.booleans())
    for part in [*tiers, *(["long"] if is_long else [])]:
        of_part = draw(st.dictionaries(st.sampled_from(kinds), numbers, max_size=3))
        said |= {f"{part}.{kind}": number for kind, number in of_part.items()} or {part: draw(numbers)}
        if is_long and part in tiers and draw(st.booleans()):
            said[f"{part}.long"] = draw(numbers)
    if is_long:
        said["long_from"] = "1000"
    if draw(st.booleans()):
        said["regional"] = draw(st.sampled_from(["0", "0.7", "1", "1.1", "1.0000001", "3"]))
    return ", ".join(f"{name}={number}" for name, number in said.items())


@given(lines(), st.sampled_from([999, 1000, 1001, 50_000]), st.integers(0, 5000), st.data())
def test_no_call_costs_more_than_its_line_lets_it(
    line: str, read: int, written: int, data: st.DataObject
) -> None:
    """Of tiers and long inputs together, whatever of them is dearer."""
    price = Prices.from_settings({"m": price_of(line)}).of("m")
    asked = data.draw(st.sampled_from(["", "default", *price.tiers]))
    place = data.draw(st.sampled_from(["", "us", UNTOLD_REGION]))
    seconds, characters = data.draw(st.integers(0, 1000)), data.draw(st.integers(0, 1000))
    upper = Usage(
        read,
        written,
        tier=asked,
        long_cache_write_tokens=read,
        audio_input_tokens=read,
        seconds=seconds,
        characters=characters,
        region=place,
    )
    stored = data.draw(st.integers(0, read))
    usage = Usage(
        read,
        written,
        data.draw(st.integers(0, read)),
        cache_write_tokens=stored,
        long_cache_write_tokens=data.draw(st.integers(0, stored)),
        audio_input_tokens=data.draw(st.integers(0, read)),
        reasoning_tokens=data.draw(st.integers(0, written)),
        tier=data.draw(st.sampled_from(["default", *(price.tiers if not asked else [asked])])),
        image_input_tokens=data.draw(st.integers(0, read)),
        image_output_tokens=data.draw(st.integers(0, written)),
        cached_image_tokens=data.draw(st.integers(0, read)),
        seconds=data.draw(st.integers(0, seconds)),
        characters=data.draw(st.integers(0, characters)),
        region=data.draw(st.sampled_from(["", "us"])) if place else "",
    )
    assert price.cost_nusd(usage) <= price.upper_bound_nusd(upper)


@pytest.mark.parametrize(
    ("text", "usage", "cost_usd"),
    [
        ("input=2, output=8, cached_input=0.5, cache_write=2.5", Usage(1000, 100, 300, 200), "0.00245"),
        ("input=2, output=8, reasoning=12", Usage(1000, 100, reasoning_tokens=50), "0.003"),
        ("input=2, output=8, request=0.001, image=0.04", Usage(0, 0, images=2), "0.081"),
        ("input=3, output=15, search=0.01", Usage(1000, 0, searches=3), "0.033"),
        ("input=0, characters=15", Usage(0, 0, characters=11), "0.000165"),
        ("input=0, characters=0.0001", Usage(0, 0, characters=11), "0.000000002"),
        ("input=2, output=8, flex=0.5", Usage(1000, 100, tier="flex"), "0.0014"),
        (
            "input=2, output=8, priority.input=3.5, priority.output=14",
            Usage(1000, 100, tier="priority"),
            "0.0049",
        ),
        (
            "input=2, output=8, priority.input=3.5, priority.output=14",
            Usage(1000, 100, tier="default"),
            "0.0028",
        ),
        ("input=2, cache_read=0.2", Usage(1000, 0, 1000), "0.0002"),
        ("input=0.7, flex=3", Usage(1_000_000, 0, tier="flex"), "2.1"),
        ("input=0.0000000001", Usage(1_000_000, 0), "0.000000001"),
        ("input=2, priority=1.8, long_from=9, long=2", Usage(10, 0, tier="priority"), "0.000072"),
        ("input=2, fast=6, fast.long=1, long_from=9, long=2", Usage(10, 0, tier="fast"), "0.00012"),
        ("input=0, flex=2, long_from=9, long.input=3", Usage(10, 0, tier="flex"), "0.00003"),
    ],
)
def test_every_kind_of_price_counts(text: str, usage: Usage, cost_usd: str) -> None:
    """As a line of `[model_costs]` says it."""
    cost = Prices.from_settings({"m": price_of(text)}).of("m").cost_nusd(usage)
    assert nusd_to_dollars(cost) == Decimal(cost_usd)


@pytest.mark.parametrize(
    "text",
    [
        "output=8",
        "input=2, ouput=8",
        "input=2, input=3",
        "input=2, lazy.input=1",
        "input=-1",
        "input=2, fast=6, fast.long=1",
        "input=2, long.long=1, long_from=9",
        "input=2, fast.flex=1",
    ],
)
def test_a_price_that_cannot_be_read_says_what_to_write(text: str) -> None:
    """A slip must not become a tier or a price of nothing."""
    with pytest.raises(ValueError, match="cached_input=2"):
        price_of(text)


def test_one_line_can_price_all_other_models() -> None:
    """So that a hard budget can let models pass whose names nobody knows yet."""
    priced = Prices.from_settings({"m": price_of("1"), "*": price_of("input=30, output=180")})
    assert "gpt-9" in priced
    assert priced.of("gpt-9").output_nusd == dollars_to_nusd(180)
    assert priced.of("m").output_nusd == dollars_to_nusd(1)


@given(st.integers(min_value=0, max_value=10**18))
def test_dollars_and_nano_dollars_are_the_same_amount(nusd: int) -> None:
    """There and back without loss, through the text that people read."""
    assert dollars_to_nusd(str(nusd_to_dollars(nusd))) == nusd


@given(st.decimals(min_value=0, max_value=10**6, places=2))
def test_a_budget_written_as_a_float_is_what_it_prints_as(dollars: Decimal) -> None:
    """0.1 is a tenth, not 0.1000000000000000055."""
    assert nusd_to_dollars(dollars_to_nusd(float(dollars))) == dollars
