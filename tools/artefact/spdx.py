"""Licence expressions (SPDX specification 3.0, annex B), and the older ways in which packages name a licence."""

from collections.abc import Iterable
from functools import cache
from typing import Any

import boolean
import license_expression
from license_expression import AND, OR, LicenseWithExceptionSymbol, get_spdx_licensing

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
    """The text is no licence expression, or names a licence that SPDX does not list."""


def refused(expression: str, *, allowed: frozenset[str]) -> frozenset[str]:
    """The licences that stand against using something under `expression`; empty where it may be used.

    Of alternatives (OR) one allowed is enough, of parts (AND) each must be. What follows WITH only grants more.
    """
    return _against(_parsed(expression), allowed)


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
        _parsed(text)
    except ExpressionError:
        return False
    return True


@cache
def _licensing() -> Any:
    return get_spdx_licensing()


def _parsed(text: str) -> Any:
    try:
        parsed = _licensing().parse(text, strict=True)
    except (license_expression.ExpressionError, boolean.ParseError) as error:
        raise ExpressionError(f"{text!r}: {error}") from error
    if parsed is None:
        raise ExpressionError("it is empty")
    unknown = sorted(key for key in _licensing().license_keys(parsed) if _known(key) is None)
    if unknown:
        raise ExpressionError(f"{text!r} names {', '.join(unknown)}, which SPDX does not list")
    return parsed


def _known(key: str) -> str | None:
    """The licence as SPDX lists it; `+` (or any later version) may follow each."""
    listed = _licensing().known_symbols
    return next((name for name in (key, key.removesuffix("+")) if name in listed), None)


def _against(node: Any, allowed: frozenset[str]) -> frozenset[str]:
    if isinstance(node, AND | OR):
        parts = [_against(part, allowed) for part in node.args]
        is_open = isinstance(node, OR) and not all(parts)
        return frozenset() if is_open else frozenset().union(*parts)
    symbol = node.license_symbol if isinstance(node, LicenseWithExceptionSymbol) else node
    name = _known(symbol.key) or symbol.key
    return frozenset() if name in allowed else frozenset({name})
