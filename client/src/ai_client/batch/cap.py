"""What a line of a batch may cost at most, for a cap that is never passed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

from ai_client.batch.lines import RequestLine
from ai_client.contract.apis import api_of
from ai_client.contract.options import ClientOptions
from ai_client.contract.request import Request
from ai_client.dialects.token_estimate import TokenRate, estimate
from ai_client.ledger.prices import NANO_PER_DOLLAR, Prices
from ai_client.settings import Settings
from ai_client.settings.places import costs_where_answered


def worst_cost(settings: Settings) -> Callable[[RequestLine], float]:
    """A function from a line to US dollars: every byte a token, and all the output that it may have.

    Infinite where nothing bounds it: the provider may search, another model may answer, there is no price.
    """
    prices = Prices.from_settings(costs_where_answered(settings))
    options = ClientOptions()
    rate = TokenRate()

    def worst_usd(line: RequestLine) -> float:
        request = Request(endpoint=line.url.removeprefix("/v1/"), body=line.body)
        body = json.dumps(line.body, ensure_ascii=False).encode("utf-8", "replace")
        model = request.model or settings.models.default
        if not api_of(request.endpoint).meters(request.body):
            return 0.0
        bound = estimate(request, body, rate, options, model=model, may_cost=True).bound
        if bound.unbounded is not None or prices.unpriced(model, bound.usage) is not None:
            return math.inf
        return prices.of(model).upper_bound_nusd(bound.usage) / NANO_PER_DOLLAR

    return worst_usd
