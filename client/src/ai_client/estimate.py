"""How many tokens a request may take, before it is sent.

Output: what the caller bounds it to. Input: from the length of the body, at a rate of tokens a byte that is
learnt from what the upstream counts, so that it is near the truth for every model and still seldom below it.
No tokenizer has more tokens than bytes, which is the bound that money is reserved by.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ai_client.options import ClientOptions
from ai_client.request import Request, Usage

# Until the upstream has told: English text has about 0.25, JSON and code 0.35, other scripts up to 0.5.
_FIRST_TOKENS_PER_BYTE = 0.5
_MARGIN = 1.05
_MOST_BYTES_PER_TOKEN = 10
_SINK = 0.02
# The dearest image of a chat model (high detail, 2048 x 2048); its bytes say nothing of its tokens.
_IMAGE_TOKENS = 2500
_INLINE_DATA = re.compile(rb'"data:[^"]{64,}"|"data":"[^"]{64,}"')


@dataclass(slots=True)
class Estimate:
    """`likely_tokens` for the rate window, `upper` for the ledger, `input_bytes` to learn from."""

    likely_tokens: int
    #: It takes no less: what the caller allows as output, and an input of ten bytes a token.
    least_tokens: int
    upper: Usage
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


def estimate(request: Request, body: bytes, rate: TokenRate, options: ClientOptions) -> Estimate:
    """Of `body`, as it is sent. Where the caller sets no bound on output, `options` has one for each purpose."""
    input_bytes, images = len(body), 0
    if b'"data:' in body or b'"input_audio"' in body:
        inline = _INLINE_DATA.findall(body)
        images = len(inline)
        input_bytes -= sum(map(len, inline))
    bound = _output_bound(request.endpoint, request.body)
    image_tokens = images * _IMAGE_TOKENS
    likely_input = math.ceil(input_bytes * rate.per_byte) + image_tokens
    return Estimate(
        likely_input + (options.default_output_tokens if bound is None else bound),
        input_bytes // _MOST_BYTES_PER_TOKEN + (bound or 0),
        Usage(input_bytes + image_tokens, options.unbounded_output_tokens if bound is None else bound),
        0 if images else input_bytes,
    )


def _output_bound(endpoint: str, body: Mapping[str, Any]) -> int | None:
    if endpoint in {"embeddings", "models"}:
        return 0
    bound = body.get("max_completion_tokens", body.get("max_tokens"))
    if not isinstance(bound, int) or isinstance(bound, bool) or bound < 0:
        return None
    choices = body.get("best_of") or body.get("n") or 1
    return bound * choices if isinstance(choices, int) and choices > 0 else bound
