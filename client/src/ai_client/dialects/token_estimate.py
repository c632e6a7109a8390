"""How many tokens a request may take, before it is sent.

Output: what the caller bounds it to. Input: from the length of the body, at a rate of tokens a byte that is
learnt from what the upstream counts, so that it is near the truth for every model and still seldom below it.
Money is reserved by the most that it may take instead: see `upper_bound`.
"""

from __future__ import annotations

import math

from msgspec import Struct

from ai_client.contract.options import ClientOptions
from ai_client.contract.request import Request
from ai_client.dialects.upper_bound import UpperBound, upper_bound

# Until the upstream has told: English text has about 0.25, JSON and code 0.35, other scripts up to 0.5.
_FIRST_TOKENS_PER_BYTE = 0.5
_MARGIN = 1.05
_MOST_BYTES_PER_TOKEN = 10
_SINK = 0.02
# An image at high detail of most models; the rate window is no place for the dearest one.
_IMAGE_TOKENS = 2_500


class Estimate(Struct):
    """`likely_tokens` for the rate window, `bound` for the ledger, `input_bytes` to learn from."""

    likely_tokens: int
    #: It takes no less: what the caller allows as output, and an input of ten bytes a token.
    least_tokens: int
    bound: UpperBound
    input_bytes: int

    def reserve(self, limit_tokens: int | None) -> int:
        """What to set aside of a minute's tokens. A guess above the limit is no reason to refuse; certainty is."""
        if limit_tokens is None or self.likely_tokens <= limit_tokens:
            return self.likely_tokens
        return max(limit_tokens, self.least_tokens)


class TokenRate:
    """Tokens a byte of one model: rises at once to what was seen, sinks slowly."""

    __slots__ = ("per_byte",)

    def __init__(self) -> None:
        self.per_byte = _FIRST_TOKENS_PER_BYTE

    def learn(self, input_bytes: int, input_tokens: int) -> None:
        if input_bytes <= 0:
            return
        seen = min(1.0, input_tokens / input_bytes * _MARGIN)
        if seen >= self.per_byte:
            self.per_byte = seen
        else:
            self.per_byte += (seen - self.per_byte) * _SINK


def estimate(
    request: Request, body: bytes, rate: TokenRate, options: ClientOptions, *, model: str, may_cost: bool
) -> Estimate:
    """Of `body`, as it is sent to what its upstream calls `model`; what costs nothing writes nothing.

    Where the caller sets no bound on output, `options` has one for each purpose.
    """
    bound = upper_bound(
        request.endpoint,
        request.body,
        model=model,
        body_bytes=len(body),
        default_output=options.unbounded_output_tokens,
    )
    text_bytes, images = bound.text_bytes, bound.usage.images
    likely_input = math.ceil(text_bytes * rate.per_byte) + images * _IMAGE_TOKENS
    given = None if bound.is_output_open else bound.usage.output_tokens
    if not may_cost:
        given = 0  # it reads what is there already, or counts
    return Estimate(
        likely_input + (options.default_output_tokens if given is None else given),
        text_bytes // _MOST_BYTES_PER_TOKEN + (given or 0),
        bound,
        0 if images else text_bytes,
    )
