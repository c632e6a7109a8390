"""What no body may hold, whichever API it is for: refused at the door, with the field's name.

A number that no counter holds, a name that can't be written to a log, or a million empty lists would otherwise be found
by whatever meets them first, deep inside: metrics, ledger, audit trail, status page, a terminal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from ai_client.gateway.app.failures import Failure, invalid

#: Values in one body: of embeddings' token lists 300,000 are the most that OpenAI takes.
MOST_VALUES: Final = 500_000
MOST_NAME_LETTERS: Final = 256
MOST_TOKENS: Final = 100_000_000
MOST_CHOICES: Final = 1024

# Numbers that money, memory or a counter depends on: the least and the most.
_COUNTS: Final = {
    "max_tokens": (0, MOST_TOKENS),
    "max_completion_tokens": (0, MOST_TOKENS),
    "max_output_tokens": (0, MOST_TOKENS),
    "n": (1, MOST_CHOICES),
    "best_of": (1, MOST_CHOICES),
}
_NAMES: Final = ("model",)
# Whole numbers beyond 64 bits, and half of a surrogate pair: a walk through all values is for texts that may have one.
_SAME_DIGIT: Final = bytes.maketrans(b"123456789", b"000000000")
_MANY_DIGITS: Final = b"0" * 19
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_LARGEST_INTEGER: Final = 2**63 - 1


def too_many_values(body: bytes) -> Failure | None:
    """Where parsing it would take a multiple of its size in memory: to be asked before that.

    Nobody else is served meanwhile, so it only takes what the interpreter does at a memory's speed: an expression that
    walks over twenty megabytes of text takes ten seconds.
    """
    if _separators(body) <= MOST_VALUES:
        return None
    unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Each value and its name are at most two texts, of two quotes each.
    if unescaped.count(b'"') <= 4 * MOST_VALUES:
        outside_texts = b"".join(unescaped.split(b'"')[::2])
        if _separators(outside_texts) <= MOST_VALUES:
            return None
    return invalid(f"The body has more than {MOST_VALUES} values.", code="too_many_values")


def _separators(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def refusal_of(body: Mapping[str, Any], text: bytes = b"") -> Failure | None:
    """The first field that can't be taken; `text` is the JSON that `body` was read from."""
    for name in _NAMES:
        if name in body and (reason := _unfit_name(body[name])):
            return invalid(f"{name} {reason}.", param=name)
    for name, (least, most) in _COUNTS.items():
        value = body.get(name)
        if value is not None and not (type(value) is int and least <= value <= most):
            return invalid(f"{name} must be a whole number from {least} to {most}.", param=name)
    if _MANY_DIGITS in text.translate(_SAME_DIGIT) or _SURROGATE.search(text):
        for name, value in body.items():
            if reason := _unfit_within(name) or _unfit_within(value):
                shown = name.encode("ascii", "replace").decode()[:MOST_NAME_LETTERS]
                return invalid(f"The field {shown} {reason}.", param=shown)
    return None


def _unfit_name(value: object) -> str | None:
    if not isinstance(value, str):
        return "must be a text"
    if len(value) > MOST_NAME_LETTERS:
        return f"must be no longer than {MOST_NAME_LETTERS} letters"
    if not value.isprintable():
        return "must be printable"
    return None


def _unfit_within(value: object) -> str | None:
    """Why it, or something within it, can't be taken."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            try:
                each.encode()
            except UnicodeEncodeError:
                return "holds half of a surrogate pair, which no UTF-8 text may"
        elif isinstance(each, dict):
            waiting += each.keys()
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
        elif isinstance(each, int) and not -_LARGEST_INTEGER <= each <= _LARGEST_INTEGER:
            return "holds a whole number beyond 64 bits"
    return None
