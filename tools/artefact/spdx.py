"""Licence expressions (SPDX specification 3.0, annex B), and the older ways in which packages name a licence."""

import re
from collections.abc import Iterable

_TOKEN = re.compile(r"\s*(\(|\)|[A-Za-z0-9.+:-]+)")
_OPERATORS = frozenset({"AND", "OR", "WITH", "(", ")"})

# Words of packages made before License-Expression (PEP 639), and the classifiers that name one licence exactly.
_OLD_WORDS = {
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "new bsd": "BSD-3-Clause",
    "psfl": "PSF-2.0",
    "python software foundation license": "PSF-2.0",
    "the unlicense (unlicense)": "Unlicense",
}


class ExpressionError(ValueError):
    """The text is no licence expression."""


def refused(expression: str, *, allowed: frozenset[str]) -> frozenset[str]:
    """The licences that stand against using something under `expression`; empty where it may be used.

    Of alternatives (OR) one allowed is enough, of parts (AND) each must be. What follows WITH only grants more.
    """
    tokens = _tokens(expression)
    result, rest = _alternatives(tokens, allowed=allowed)
    if rest:
        raise ExpressionError(f"{expression!r} goes on after its end, with {rest[0]!r}")
    return result


def expression_of(*, expression: str | None, text: str | None, classifiers: Iterable[str]) -> str | None:
    """The expression that a package's metadata means, the newest field first; None where it names no licence."""
    if expression:
        return expression
    if text:
        known = _OLD_WORDS.get(text.strip().lower())
        if known or _is_expression(text):
            return known or text.strip()
    named = {_OLD_WORDS.get(classifier.rsplit(" :: ", 1)[-1].lower()) for classifier in classifiers}
    # Several classifiers do not say whether the user may choose: assume not.
    return None if None in named or not named else " AND ".join(sorted(filter(None, named)))


def _is_expression(text: str) -> bool:
    try:
        refused(text, allowed=frozenset())
    except ExpressionError:
        return False
    # One word such as `BSD` has the form but names no licence.
    return "-" in text or text.strip() in {"MIT", "ISC", "Zlib", "Unlicense"}


def _tokens(expression: str) -> list[str]:
    tokens, position = [], 0
    text = expression.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ExpressionError(f"{expression!r} has an unexpected {text[position:].strip()[:1]!r}")
        tokens.append(match[1])
        position = match.end()
    return tokens


def _alternatives(tokens: list[str], *, allowed: frozenset[str]) -> tuple[frozenset[str], list[str]]:
    result, rest = _parts(tokens, allowed=allowed)
    branches = [result]
    while rest and rest[0] == "OR":
        result, rest = _parts(rest[1:], allowed=allowed)
        branches.append(result)
    return (frozenset() if not all(branches) else frozenset().union(*branches)), rest


def _parts(tokens: list[str], *, allowed: frozenset[str]) -> tuple[frozenset[str], list[str]]:
    result, rest = _licence(tokens, allowed=allowed)
    while rest and rest[0] == "AND":
        more, rest = _licence(rest[1:], allowed=allowed)
        result |= more
    return result, rest


def _licence(tokens: list[str], *, allowed: frozenset[str]) -> tuple[frozenset[str], list[str]]:
    if not tokens or (tokens[0] in _OPERATORS and tokens[0] != "("):
        raise ExpressionError(f"a licence is missing before {' '.join(tokens) or 'the end'!r}")
    if tokens[0] == "(":
        result, rest = _alternatives(tokens[1:], allowed=allowed)
        if rest[:1] != [")"]:
            raise ExpressionError("a closing parenthesis is missing")
        return result, rest[1:]
    name, rest = tokens[0], tokens[1:]
    if rest[:1] == ["WITH"]:
        if len(rest) < 2 or rest[1] in _OPERATORS:
            raise ExpressionError(f"the exception after {name} WITH is missing")
        rest = rest[2:]
    return frozenset() if name.removesuffix("+") in allowed else frozenset({name}), rest
