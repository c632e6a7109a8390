"""What a call costs, in whole nano-dollars: list prices of `[model_costs]`, exact to the last token.

A price is kept as nano-dollars per million tokens, an integer, so that sums never drift as floats do. Only
the cost of one call is rounded, once and upwards, to a whole nano-dollar.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from ai_client.contract.request import UNTOLD_REGION, Usage
from ai_client.contract.stores import Unbounded
from ai_client.settings.prices import ANY_MODEL

if TYPE_CHECKING:
    from ai_client.settings import ModelPrice

NANO_PER_DOLLAR: Final = 1_000_000_000
TOKENS_PER_PRICE: Final = 1_000_000
#: More than any budget allows ($1e9), and so little that sums of what is in flight stay within 64 bits.
MOST_NUSD: Final = 2_000_000_000 * NANO_PER_DOLLAR
#: What Anthropic takes for an answer that may be made in one country alone, by millionths.
PUBLISHED_REGIONAL_PPM: Final = 1_100_000
# Anywhere, the place that it publishes that price for, and what that is a bound of.
_KNOWN_REGIONS: Final = frozenset(("", "us", UNTOLD_REGION))


@dataclass(frozen=True, slots=True)
class Price:
    """Prices of one model: of tokens in nano-dollars per million, of the rest in nano-dollars each.

    None: as the kind of token it is (kept for an hour: 1.6 times what is written, as Anthropic sells it; a picture that
    is written: as sound is); an image, a search, a second of sound and a character without a price cost nothing beside
    their tokens.
    """

    input_nusd: int
    output_nusd: int
    cached_input_nusd: int
    cache_write_nusd: int | None = None
    reasoning_nusd: int | None = None
    request_nusd: int = 0
    image_nusd: int | None = None
    search_nusd: int | None = None
    #: What the tiers of service cost that cost something else.
    tiers: Mapping[str, "Price"] = field(default_factory=dict)
    long_cache_write_nusd: int | None = None
    audio_input_nusd: int | None = None
    audio_output_nusd: int | None = None
    #: With more input than so many tokens a call costs what `long` says, if that is more; so of each tier.
    long_from: int | None = None
    long: "Price | None" = None
    image_input_nusd: int | None = None
    image_output_nusd: int | None = None
    cached_image_input_nusd: int | None = None
    second_nusd: int | None = None
    #: All tokens of a call by so many millionths, where it says where it is answered.
    regional_ppm: int | None = None
    #: Of a million characters that are read out.
    characters_nusd: int | None = None
    #: The most that a token can cost whose kind nobody chose, read and written.
    _dearest_read_nusd: int = field(default=0, init=False, compare=False, repr=False)
    _dearest_written_nusd: int = field(default=0, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """What every call's bound asks for is reckoned once."""
        # A model that reads and draws pictures does so unasked.
        read = (self.cached_input_nusd, self._write_nusd, self.image_input_nusd, self.cached_image_input_nusd)
        written = (self.reasoning_nusd, self.image_output_nusd)
        object.__setattr__(self, "_dearest_read_nusd", _most((self.input_nusd, *read)))
        object.__setattr__(self, "_dearest_written_nusd", _most((self.output_nusd, *written)))

    def is_told_by(self, usage: Usage) -> bool:
        """Whether `usage` says what a call cost: without tokens it does where there is a price of what it has."""
        if usage.total_tokens:
            return True
        if usage.characters:
            of_tokens = self.input_nusd or self.output_nusd or self.audio_output_nusd
            return self.characters_nusd is not None and not of_tokens
        return not usage.seconds or self.second_nusd is not None

    def cost_nusd(self, usage: Usage) -> int:
        """Nano-dollars of one call.

        Numbers that can't be (negative, more cached than there was input) are brought into range: a broken
        usage block must neither credit money nor raise.
        """
        price, read, wrote = self.tiers.get(usage.tier, self), usage.input_tokens, usage.output_tokens
        if price.long is None and read >= 0 <= wrote and usage == Usage(read, wrote, tier=usage.tier):
            # Most calls use nothing else.
            tokens = read * price.input_nusd + wrote * price.output_nusd
            return -(-tokens // TOKENS_PER_PRICE) + price.request_nusd
        cost = price._usual_nusd(usage)
        if price._is_long(usage) and price.long is not None:
            cost = max(cost, price.long._usual_nusd(usage))
        return cost

    def _usual_nusd(self, usage: Usage) -> int:
        """The cost by this price alone."""
        tokens = self._tokens_nusd(usage)
        if usage.region:
            tokens = self._regional(tokens)
        return -(-tokens // TOKENS_PER_PRICE) + self._each_nusd(usage)

    def _regional(self, nusd: int) -> int:
        return -(-nusd * _or(self.regional_ppm, PUBLISHED_REGIONAL_PPM) // TOKENS_PER_PRICE)

    def _is_long(self, usage: Usage) -> bool:
        return self.long_from is not None and usage.input_tokens > self.long_from

    def _tokens_nusd(self, usage: Usage) -> int:
        """A million times the cost of the tokens."""
        read, wrote = max(usage.input_tokens, 0), max(usage.output_tokens, 0)
        if _has_one_kind(usage):
            return read * self.input_nusd + wrote * self.output_nusd
        cached = min(max(usage.cached_input_tokens, 0), read)
        stored = min(max(usage.cache_write_tokens, 0), read - cached)
        kept_long = min(max(usage.long_cache_write_tokens, 0), stored)
        heard = min(max(usage.audio_input_tokens, 0), read - cached - stored)
        seen_again = min(max(usage.cached_image_tokens, 0), cached)
        seen = min(max(usage.image_input_tokens - seen_again, 0), read - cached - stored - heard)
        thought = min(max(usage.reasoning_tokens, 0), wrote)
        spoken = min(max(usage.audio_output_tokens, 0), wrote - thought)
        drawn = min(max(usage.image_output_tokens, 0), wrote - thought - spoken)
        return (
            (read - cached - stored - heard - seen) * self.input_nusd
            + heard * _or(self.audio_input_nusd, self.input_nusd)
            + seen * _or(self.image_input_nusd, self.input_nusd)
            + (cached - seen_again) * self.cached_input_nusd
            + seen_again * _or(self.cached_image_input_nusd, self.cached_input_nusd)
            + (stored - kept_long) * self._write_nusd
            + kept_long * self._long_write_nusd
            + (wrote - thought - spoken - drawn) * self.output_nusd
            + thought * _or(self.reasoning_nusd, self.output_nusd)
            + spoken * _or(self.audio_output_nusd, self.output_nusd)
            + drawn * _or(self.image_output_nusd, _or(self.audio_output_nusd, self.output_nusd))
        )

    @property
    def _write_nusd(self) -> int:
        return _or(self.cache_write_nusd, self.input_nusd)

    @property
    def _long_write_nusd(self) -> int:
        if self.cache_write_nusd is None:
            return _or(self.long_cache_write_nusd, self.input_nusd)
        return _or(self.long_cache_write_nusd, -(-self.cache_write_nusd * 8 // 5))

    def upper_bound_nusd(self, upper: Usage) -> int:
        """The most that a call of at most so much can cost: whatever of its input is cached or stored, whatever of its
        output is reasoning, and whichever tier answers where `upper` names none; at most `MOST_NUSD`."""
        if not self.tiers and self.long is None:
            return min(MOST_NUSD, self._dearest_nusd(upper))
        prices = [self]
        if upper.tier:
            prices += [self.tiers[upper.tier]] if upper.tier in self.tiers else []
        else:
            prices += self.tiers.values()
        prices += [price.long for price in prices if price._is_long(upper) and price.long is not None]
        return min(MOST_NUSD, max(price._dearest_nusd(upper) for price in prices))

    def _dearest_nusd(self, upper: Usage) -> int:
        read, wrote = self._dearest_read_nusd, self._dearest_written_nusd
        if upper.long_cache_write_tokens:
            read = max(read, self._long_write_nusd)
        if upper.audio_input_tokens:
            read = max(read, _or(self.audio_input_nusd, 0))
        if upper.audio_output_tokens:
            wrote = max(wrote, _or(self.audio_output_nusd, 0))
        total = max(upper.input_tokens, 0) * read + max(upper.output_tokens, 0) * wrote
        if upper.region:
            total = max(total, self._regional(total))
        return -(-total // TOKENS_PER_PRICE) + self._each_nusd(upper)

    def _each_nusd(self, usage: Usage) -> int:
        if not (usage.images or usage.searches or usage.seconds or usage.characters):
            return self.request_nusd
        images, searches, seconds = max(usage.images, 0), max(usage.searches, 0), max(usage.seconds, 0)
        return (
            self.request_nusd
            + images * _or(self.image_nusd, 0)
            + searches * _or(self.search_nusd, 0)
            + seconds * _or(self.second_nusd, 0)
            - (-max(usage.characters, 0) * _or(self.characters_nusd, 0) // TOKENS_PER_PRICE)
        )


# They cost the usual price, or less.
_USUAL_TIERS: Final = frozenset(("", "default", "standard", "standard_only", "flex", "batch"))


def _has_one_kind(usage: Usage) -> bool:
    """Whether all its input costs the same, and all its output."""
    return not (
        usage.cached_input_tokens
        or usage.cache_write_tokens
        or usage.reasoning_tokens
        or usage.audio_input_tokens
        or usage.audio_output_tokens
        or usage.image_input_tokens
        or usage.image_output_tokens
    )


def _or(price: int | None, other: int) -> int:
    return other if price is None else price


class Prices:
    """The price list. A model without a line has the one of `*`, or is priced as the dearest in each member."""

    __slots__ = ("_by_model", "_dearest", "_others")

    def __init__(self, by_model: Mapping[str, Price]) -> None:
        self._by_model = dict(by_model)
        self._others = self._by_model.pop(ANY_MODEL, None)
        listed = [*self._by_model.values(), *(() if self._others is None else (self._others,))]
        self._dearest = Price(
            input_nusd=max((price.input_nusd for price in listed), default=0),
            output_nusd=max((price.output_nusd for price in listed), default=0),
            cached_input_nusd=max((price.cached_input_nusd for price in listed), default=0),
            cache_write_nusd=_most(price.cache_write_nusd for price in listed),
            reasoning_nusd=_most(price.reasoning_nusd for price in listed),
            request_nusd=max((price.request_nusd for price in listed), default=0),
            long_cache_write_nusd=_most(price.long_cache_write_nusd for price in listed),
            audio_input_nusd=_most(price.audio_input_nusd for price in listed),
            audio_output_nusd=_most(price.audio_output_nusd for price in listed),
            image_input_nusd=_most(price.image_input_nusd for price in listed),
            image_output_nusd=_most(price.image_output_nusd for price in listed),
            cached_image_input_nusd=_most(price.cached_image_input_nusd for price in listed),
            second_nusd=_most(price.second_nusd for price in listed),
            regional_ppm=_most(price.regional_ppm for price in listed),
            characters_nusd=_most(price.characters_nusd for price in listed),
        )

    @classmethod
    def from_settings(cls, model_costs: Mapping[str, "ModelPrice"]) -> "Prices":
        """The section `[model_costs]`."""
        return cls({model: _from_settings(price) for model, price in model_costs.items()})

    def __contains__(self, model: object) -> bool:
        """Whether a line says what it costs, its own or that of all others."""
        return model in self._by_model or self._others is not None

    def __bool__(self) -> bool:
        return bool(self._by_model) or self._others is not None

    def of(self, model: str) -> Price:
        """The price of `model`; of an unlisted one that of `*`, else the dearest of the list in each member."""
        return self._by_model.get(model) or self._others or self._dearest

    def unpriced(self, model: str, upper: Usage) -> Unbounded | None:
        """What of such a call of `model` costs nobody knows what. A list without any prices counts nothing."""
        tier = upper.tier
        if self and model not in self:
            remedy = "Add a line for it to [model_costs], or one for all others: `* = input=…, output=…`."
            return Unbounded("model", f"{model} has no price", remedy)
        if tier not in _USUAL_TIERS and tier not in self.of(model).tiers:
            remedy = f"Add `{tier}=FACTOR` to the line of {model} in [model_costs], or ask for another tier."
            return Unbounded("service_tier", f"{tier} has no price", remedy)
        if upper.region not in _KNOWN_REGIONS and self.of(model).regional_ppm is None:
            remedy = (
                f"Add `regional=FACTOR` to the line of {model} in [model_costs], or ask for another place."
            )
            return Unbounded("inference_geo", f"{upper.region} has no price", remedy)
        return None

    def models(self) -> tuple[str, ...]:
        """The listed models, in the order of the list."""
        return tuple(self._by_model)


def _most(prices: Iterable[int | None]) -> int | None:
    return max((price for price in prices if price is not None), default=None)


def _from_settings(price: "ModelPrice") -> Price:
    return Price(
        input_nusd=_nusd(price.input_usd_per_mtok),
        output_nusd=_nusd(price.output_usd_per_mtok),
        cached_input_nusd=_nusd(price.cached_input_usd_per_mtok),
        cache_write_nusd=_nusd_or_none(price.cache_write_usd_per_mtok),
        reasoning_nusd=_nusd_or_none(price.reasoning_usd_per_mtok),
        request_nusd=_nusd(price.request_usd),
        image_nusd=_nusd_or_none(price.image_usd),
        search_nusd=_nusd_or_none(price.search_usd),
        tiers={tier: _from_settings(of_tier) for tier, of_tier in price.tiers},
        long_cache_write_nusd=_nusd_or_none(price.cache_write_1h_usd_per_mtok),
        audio_input_nusd=_nusd_or_none(price.audio_input_usd_per_mtok),
        audio_output_nusd=_nusd_or_none(price.audio_output_usd_per_mtok),
        long_from=price.long_from_tokens,
        long=None if price.long is None else _from_settings(price.long),
        image_input_nusd=_nusd_or_none(price.image_input_usd_per_mtok),
        cached_image_input_nusd=_nusd_or_none(price.cached_image_input_usd_per_mtok),
        image_output_nusd=_nusd_or_none(price.image_output_usd_per_mtok),
        second_nusd=None if price.minute_usd is None else -(-_nusd(price.minute_usd) // 60),
        regional_ppm=None if price.regional_factor is None else _ppm(price.regional_factor),
        characters_nusd=_nusd_or_none(price.characters_usd),
    )


def _ppm(factor: float) -> int:
    return math.ceil(Decimal(str(factor)) * TOKENS_PER_PRICE)


def _nusd_or_none(dollars: float | None) -> int | None:
    return None if dollars is None else _nusd(dollars)


def _nusd(dollars: float) -> int:
    """A price as whole nano-dollars, rounded up, as a bill may be: budgets are rounded down."""
    return math.ceil(Decimal(str(dollars)) * NANO_PER_DOLLAR)


def dollars_to_nusd(dollars: str | int | float | Decimal) -> int:
    """Dollars as whole nano-dollars, rounded down. A float counts as what it prints as: 0.1 is a tenth."""
    return int(Decimal(str(dollars)) * NANO_PER_DOLLAR)


def nusd_to_dollars(nusd: int) -> Decimal:
    """Nano-dollars as exact dollars, for people to read."""
    return Decimal(nusd) / NANO_PER_DOLLAR
