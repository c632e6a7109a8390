"""What a line of `[model_costs]` says: the prices of one model.

gpt-4.1 = 8
gpt-4.1 = input=2, output=8, cached_input=0.5, cache_write=2.5, reasoning=8
claude-sonnet-4 = input=3, output=15, cache_write=3.75, cache_write_1h=6, long_from=200000, long.input=6
gpt-4o-audio = input=2.5, output=10, audio_input=40, audio_output=80
gpt-image-1.5 = input=5, output=10, cached_input=1.25, image_input=8, cached_image_input=2, image_output=32
whisper-1 = input=0, minute=0.006
tts-1 = input=0, characters=15
gpt-4.1 = input=2, output=8, request=0.001, image=0.04, flex=0.5, priority.input=3.5, priority.output=14
gpt-5.4 = input=2.5, output=15, regional=1.1
* = input=30, output=180
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from typing import Any

from ai_client.settings import kinds

#: Tiers of service that providers sell. What else they write in `service_tier` is the usual one.
TIERS = ("flex", "batch", "priority", "fast", "scale")
#: The line for every model that has none of its own.
ANY_MODEL = "*"
_PRICE = kinds.number(least=0, most=1e6)
_WANTED = (
    "write `8`, or `input=8, output=24, cached_input=2` (US dollars per million tokens); also cache_write,"
    " cache_write_1h, reasoning, audio_input, audio_output, image_input, cached_image_input, image_output; request,"
    " image, search, minute (US dollars each); characters (US dollars per million that are read out);"
    " flex, batch, priority, fast, scale (a factor, or `priority.input=14`);"
    " long_from=TOKENS with long (likewise), which a tier multiplies unless it has its own factor (`fast.long=1`);"
    " regional=FACTOR, where a call is answered in one place alone"
)
_ALIASES = {"cache_read": "cached_input"}
#: What a call with more input than `long_from` tokens costs, written as tiers are.
_LONG = "long"
_PARTS = (*TIERS, _LONG)
#: The factor of a place, of all tokens.
_REGIONAL = "regional"


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """US dollars per million tokens, and per request, image, search and minute of sound.

    None: that of the kind of token it is.
    """

    input_usd_per_mtok: float
    output_usd_per_mtok: float
    cached_input_usd_per_mtok: float
    cache_write_usd_per_mtok: float | None = None
    reasoning_usd_per_mtok: float | None = None
    request_usd: float = 0.0
    image_usd: float | None = None
    search_usd: float | None = None
    cache_write_1h_usd_per_mtok: float | None = None
    audio_input_usd_per_mtok: float | None = None
    audio_output_usd_per_mtok: float | None = None
    tiers: tuple[tuple[str, ModelPrice], ...] = field(default=())
    #: With more input than so many tokens a call costs what `long` says; each tier has its own.
    long_from_tokens: int | None = None
    long: ModelPrice | None = None
    image_input_usd_per_mtok: float | None = None
    cached_image_input_usd_per_mtok: float | None = None
    image_output_usd_per_mtok: float | None = None
    minute_usd: float | None = None
    #: What all tokens cost more where a call is answered in one place alone.
    regional_factor: float | None = None
    #: A million characters that are read out.
    characters_usd: float | None = None


_FIELDS = {
    item.name.removesuffix("_usd_per_mtok").removesuffix("_usd"): item.name
    for item in fields(ModelPrice)
    if "_usd" in item.name
}


def flat_price(usd_per_mtok: float) -> ModelPrice:
    """One price for every token."""
    return ModelPrice(usd_per_mtok, usd_per_mtok, usd_per_mtok)


def price_of(text: str) -> ModelPrice:
    """The prices in a line. What is left out is the input price, or that of its kind of token. Raises ValueError."""
    if "=" not in text:
        return flat_price(_number(text))
    own: dict[str, float] = {}
    factors: dict[str, float] = {}
    of_parts: dict[str, dict[str, float]] = {}
    long_from: int | None = None
    regional: float | None = None
    for piece in text.split(","):
        name, _, amount = (each.strip() for each in piece.partition("="))
        if name == "long_from" and long_from is None:
            long_from = _tokens(amount)
            continue
        if name == _REGIONAL and regional is None:
            regional = _number(amount)
            continue
        part, _, member = name.rpartition(".")
        member = _ALIASES.get(member, member)
        into = own if not part else of_parts.setdefault(part, {})
        if not part and member in _PARTS:
            into = factors
        elif not _is_known(part, member):
            raise ValueError(_WANTED)
        if member in into:
            raise ValueError(_WANTED)
        into[member] = _number(amount)
    if "input" not in own or (long_from is None) != (_LONG not in factors and _LONG not in of_parts):
        raise ValueError(_WANTED)
    base = replace(
        ModelPrice(own["input"], own["input"], own["input"], regional_factor=regional), **_named(own)
    )
    return _with_parts(base, factors, of_parts, long_from=long_from)


def at_one_place(price: ModelPrice) -> ModelPrice:
    """What is paid of it where everything is answered in one place alone."""
    factor = price.regional_factor
    if factor is None:
        return price
    return replace(
        _part(price, factor, {}),
        tiers=tuple((tier, at_one_place(of_tier)) for tier, of_tier in price.tiers),
        long=None if price.long is None else at_one_place(price.long),
    )


def _with_parts(
    base: ModelPrice,
    factors: dict[str, float],
    of_parts: dict[str, dict[str, float]],
    *,
    long_from: int | None,
) -> ModelPrice:
    parts = {
        part: _part(base, factors.get(part, 1.0), of_parts.get(part, {}))
        for part in _PARTS
        if part in factors or part in of_parts
    }
    long = parts.pop(_LONG, None)
    if long is None:
        if any(_LONG in of_tier for of_tier in of_parts.values()):
            raise ValueError(_WANTED)
        return replace(base, tiers=tuple(parts.items()))
    tiers = {
        tier: replace(
            price,
            long_from_tokens=long_from,
            long=_long_of(price, base, long, factor=of_parts.get(tier, {}).get(_LONG)),
        )
        for tier, price in parts.items()
    }
    return replace(base, tiers=tuple(tiers.items()), long_from_tokens=long_from, long=long)


def _part(base: ModelPrice, factor: float, own: dict[str, float]) -> ModelPrice:
    """Every price of tokens by the factor, but for those that are given."""
    scaled: dict[str, Any] = {name: _product(price, factor) for name, price in _of_tokens(base).items()}
    return replace(base, **(scaled | _named(own)))


def _long_of(tier: ModelPrice, base: ModelPrice, long: ModelPrice, *, factor: float | None) -> ModelPrice:
    """What a tier costs with a long input: by its own factor, else dearer by as much as the usual tier is."""
    if factor is not None:
        return _part(tier, factor, {})
    usual, longer = _of_tokens(base), _of_tokens(long)
    scaled: dict[str, Any] = {}
    for name, price in _of_tokens(tier).items():
        kind = name if usual.get(name) and name in longer else "input_usd_per_mtok"
        scaled[name] = _product(price, longer[kind], by=usual[kind]) if usual[kind] else longer[kind]
    return replace(tier, **(longer | scaled))


def _of_tokens(price: ModelPrice) -> dict[str, float]:
    """Those of its prices that are of tokens, and given."""
    told = {item.name: getattr(price, item.name) for item in fields(ModelPrice)}
    return {name: each for name, each in told.items() if name.endswith("_per_mtok") and each is not None}


def _product(price: float, factor: float, *, by: float = 1.0) -> float:
    """As on paper: 0.7 * 3 is 2.1, where floats make less of it."""
    return float(Decimal(str(price)) * Decimal(str(factor)) / Decimal(str(by)))


def _is_known(part: str, member: str) -> bool:
    """Whether a line may say so."""
    if member == _LONG:
        return part in TIERS
    return member in _FIELDS and (not part or part in _PARTS)


def _named(own: dict[str, float]) -> dict[str, Any]:
    return {_FIELDS[name]: amount for name, amount in own.items() if name != _LONG}


def _tokens(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(_WANTED)
    return int(text)


def _number(text: str) -> float:
    try:
        return _PRICE(text)
    except ValueError:
        raise ValueError(_WANTED) from None
