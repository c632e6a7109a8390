"""What a call costs, in whole nano-dollars: list prices of `[model_costs]`, exact to the last token.

A price is kept as nano-dollars per million tokens, an integer, so that sums never drift as floats do. Only
the cost of one call is rounded, once and upwards, to a whole nano-dollar.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ai_client.settings import ModelPrice

NANO_PER_DOLLAR: Final = 1_000_000_000
TOKENS_PER_PRICE: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """List price of one model, each in nano-dollars per million tokens."""

    input_nusd: int
    output_nusd: int
    cached_input_nusd: int

    def cost_nusd(self, *, input_tokens: int, output_tokens: int, cached_input_tokens: int = 0) -> int:
        """Nano-dollars of one call; `cached_input_tokens` are part of `input_tokens`, as OpenAI reports them.

        Numbers that can't be (negative, more cached than there was input) are brought into range: a broken
        usage block must neither credit money nor raise.
        """
        read = max(input_tokens, 0)
        cached = min(max(cached_input_tokens, 0), read)
        total = (
            (read - cached) * self.input_nusd
            + cached * self.cached_input_nusd
            + max(output_tokens, 0) * self.output_nusd
        )
        return -(-total // TOKENS_PER_PRICE)

    def upper_bound_nusd(self, *, input_tokens: int, output_tokens: int) -> int:
        """The most that a call of at most so many tokens can cost, whatever part of its input is cached."""
        dearest = max(self.input_nusd, self.cached_input_nusd)
        total = max(input_tokens, 0) * dearest + max(output_tokens, 0) * self.output_nusd
        return -(-total // TOKENS_PER_PRICE)


class Prices:
    """The price list. An unlisted model is priced as the dearest one, so that budgets stay upper bounds."""

    __slots__ = ("_by_model", "_dearest")

    def __init__(self, by_model: Mapping[str, Price]) -> None:
        self._by_model = dict(by_model)
        listed = self._by_model.values()
        self._dearest = Price(
            input_nusd=max((price.input_nusd for price in listed), default=0),
            output_nusd=max((price.output_nusd for price in listed), default=0),
            cached_input_nusd=max((price.cached_input_nusd for price in listed), default=0),
        )

    @classmethod
    def from_settings(cls, model_costs: Mapping[str, "ModelPrice"]) -> "Prices":
        """The section `[model_costs]`."""
        return cls(
            {
                model: Price(
                    input_nusd=dollars_to_nusd(price.input_usd_per_mtok),
                    output_nusd=dollars_to_nusd(price.output_usd_per_mtok),
                    cached_input_nusd=dollars_to_nusd(price.cached_input_usd_per_mtok),
                )
                for model, price in model_costs.items()
            }
        )

    def __contains__(self, model: object) -> bool:
        return model in self._by_model

    def of(self, model: str) -> Price:
        """The price of `model`; of an unlisted one the dearest of the list in each member."""
        return self._by_model.get(model, self._dearest)

    def models(self) -> tuple[str, ...]:
        """The listed models, in the order of the list."""
        return tuple(self._by_model)


def dollars_to_nusd(dollars: str | int | float | Decimal) -> int:
    """Dollars as whole nano-dollars, rounded down. A float counts as what it prints as: 0.1 is a tenth."""
    return int(Decimal(str(dollars)) * NANO_PER_DOLLAR)


def nusd_to_dollars(nusd: int) -> Decimal:
    """Nano-dollars as exact dollars, for people to read."""
    return Decimal(nusd) / NANO_PER_DOLLAR
