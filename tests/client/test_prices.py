"""Prices: exact, and upper bounds that hold."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_client.prices import Price, Prices, dollars_to_nusd, nusd_to_dollars
from ai_client.settings import LIST_PRICES, ModelPrice

tokens = st.integers(min_value=0, max_value=10_000_000)
nano_prices = st.integers(min_value=0, max_value=1_000 * 10**9)
prices = st.builds(Price, input_nusd=nano_prices, output_nusd=nano_prices, cached_input_nusd=nano_prices)


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
    nusd = Prices.from_settings(LIST_PRICES).of(model).cost_nusd(input_tokens=1_000, output_tokens=500)
    assert nusd_to_dollars(nusd) == Decimal(cost_usd)


def test_cached_input_is_a_part_of_the_input_with_a_price_of_its_own() -> None:
    """300 of 1,000 input tokens at the cached price, 700 at the full one."""
    price = Prices.from_settings({"m": ModelPrice(2.0, 8.0, 0.5)}).of("m")
    cost = price.cost_nusd(input_tokens=1_000, output_tokens=10, cached_input_tokens=300)
    assert cost == 700 * 2_000 + 300 * 500 + 10 * 8_000


def test_an_unlisted_model_is_priced_as_the_dearest() -> None:
    """Whatever the upstream takes for it, a budget must not count it as free."""
    listed = Prices.from_settings(LIST_PRICES)
    assert "gpt-9" not in listed
    assert listed.of("gpt-9") == listed.of("claude-sonnet-4.5")


def test_an_empty_price_list_prices_everything_at_nothing() -> None:
    """Users who count no costs configure no prices; that is no error."""
    assert Prices({}).of("any").cost_nusd(input_tokens=10**6, output_tokens=10**6) == 0


@pytest.mark.parametrize("broken", [(-5, 10, 0), (10, -5, 0), (10, 10, 50), (10, 10, -3)])
def test_a_broken_usage_block_never_credits_money(broken: tuple[int, int, int]) -> None:
    """Negative counts count as none; more cached tokens than input ones are all of the input."""
    read, written, cached = broken
    price = Price(input_nusd=2 * 10**9, output_nusd=8 * 10**9, cached_input_nusd=10**9)
    cost = price.cost_nusd(input_tokens=read, output_tokens=written, cached_input_tokens=cached)
    sane = price.cost_nusd(
        input_tokens=max(read, 0),
        output_tokens=max(written, 0),
        cached_input_tokens=min(max(cached, 0), max(read, 0)),
    )
    assert cost == sane >= 0


@given(prices, tokens, tokens, tokens)
def test_the_cost_is_the_exact_one_rounded_up_to_a_nano_dollar(
    price: Price, read: int, written: int, cached: int
) -> None:
    """Compared with rational arithmetic: never less, and less than one nano-dollar more."""
    cached = min(cached, read)
    exact = Decimal(
        (read - cached) * price.input_nusd + cached * price.cached_input_nusd + written * price.output_nusd
    ) / Decimal(10**6)
    cost = price.cost_nusd(input_tokens=read, output_tokens=written, cached_input_tokens=cached)
    assert exact <= cost < exact + 1


@given(prices, tokens, tokens, st.data())
def test_no_call_within_the_bounds_costs_more_than_the_upper_bound(
    price: Price, read: int, written: int, data: st.DataObject
) -> None:
    """Whatever part is cached and however few tokens come back."""
    bound = price.upper_bound_nusd(input_tokens=read, output_tokens=written)
    actual_read = data.draw(st.integers(0, read))
    cost = price.cost_nusd(
        input_tokens=actual_read,
        output_tokens=data.draw(st.integers(0, written)),
        cached_input_tokens=data.draw(st.integers(0, actual_read)),
    )
    assert cost <= bound


@given(st.integers(min_value=0, max_value=10**18))
def test_dollars_and_nano_dollars_are_the_same_amount(nusd: int) -> None:
    """There and back without loss, through the text that people read."""
    assert dollars_to_nusd(str(nusd_to_dollars(nusd))) == nusd


@given(st.decimals(min_value=0, max_value=10**6, places=2))
def test_a_budget_written_as_a_float_is_what_it_prints_as(dollars: Decimal) -> None:
    """0.1 is a tenth, not 0.1000000000000000055."""
    assert nusd_to_dollars(dollars_to_nusd(float(dollars))) == dollars
