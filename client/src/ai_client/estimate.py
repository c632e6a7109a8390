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

from ai_client.request import Request, Usage

# Until the upstream has told: English text has about 0.25, JSON and code 0.35, other scripts up to 0.5.
_FIRST_TOKENS_PER_BYTE = 0.5
_MARGIN = 1.05
_SINK = 0.02
# The dearest image of a chat model (high detail, 2048 x 2048); its bytes say nothing of its tokens.
_IMAGE_TOKENS = 2500
_INLINE_DATA = re.compile(rb'"data:[^"]{64,}"|"data":"[^"]{64,}"')


@dataclass(frozen=True, slots=True)
class Estimate:
    """`reserve_tokens` for the rate window; `upper` for the ledger; `input_bytes` to learn from."""

    reserve_tokens: int
    upper: Usage
    input_bytes: int
    #: Whether the caller bounded the output, so that the reserve is one, too.
    is_bounded: bool


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
    request: Request, body: bytes, rate: TokenRate, *, default_output: int, unbounded_output: int
) -> Estimate:
    """Where the caller sets no bound, `default_output` is reserved and money is for `unbounded_output`."""
    input_bytes, images = len(body), 0
    if b'"data:' in body or b'"input_audio"' in body:
        inline = _INLINE_DATA.findall(body)
        images = len(inline)
        input_bytes -= sum(map(len, inline))
    bound = _output_bound(request.endpoint, request.body)
    output = default_output if bound is None else bound
    image_tokens = images * _IMAGE_TOKENS
    likely = math.ceil(input_bytes * rate.per_byte) + image_tokens
    upper = Usage(input_bytes + image_tokens, unbounded_output if bound is None else bound)
    return Estimate(likely + output, upper, 0 if images else input_bytes, bound is not None)


def _output_bound(endpoint: str, body: Mapping[str, Any]) -> int | None:
    if endpoint in {"embeddings", "models"}:
        return 0
    bound = body.get("max_completion_tokens", body.get("max_tokens"))
    if not isinstance(bound, int) or isinstance(bound, bool) or bound < 0:
        return None
    choices = body.get("best_of") or body.get("n") or 1
    return bound * choices if isinstance(choices, int) and choices > 0 else bound
