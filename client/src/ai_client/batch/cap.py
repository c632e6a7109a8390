"""What a line of a batch may cost at most, for a cap that is never passed."""

from __future__ import annotations

import json
from collections.abc import Callable

from ai_client.batch.lines import RequestLine
from ai_client.estimate import TokenRate, estimate
from ai_client.options import ClientOptions
from ai_client.prices import NANO_PER_DOLLAR, Prices
from ai_client.request import Request
from ai_client.settings import Settings


def worst_cost(settings: Settings) -> Callable[[RequestLine], float]:
    """A function from a line to US dollars: every byte a token, and all the output that it may have."""
    prices = Prices.from_settings(settings.model_costs)
    options = ClientOptions()
    rate = TokenRate()

    def worst_usd(line: RequestLine) -> float:
        request = Request(endpoint=line.url.removeprefix("/v1/"), body=line.body)
        body = json.dumps(line.body, ensure_ascii=False).encode("utf-8", "replace")
        upper = estimate(request, body, rate, options).upper
        price = prices.of(request.model or settings.models.default)
        nusd = price.upper_bound_nusd(input_tokens=upper.input_tokens, output_tokens=upper.output_tokens)
        return nusd / NANO_PER_DOLLAR

    return worst_usd
