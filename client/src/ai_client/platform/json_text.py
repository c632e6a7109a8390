"""JSON as the hot path writes and reads it: by msgspec, and by the standard library what msgspec refuses.

The difference is 10 to 15 microseconds of CPU for each of the four texts of a call (docs/adr/0015-json-by-msgspec.md).
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

import msgspec

_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder().decode


def write_json(value: object) -> bytes:
    """`value` in UTF-8, without spaces. Raises TypeError, ValueError (lone surrogates too), RecursionError."""
    try:
        return _encode(value)
    except TypeError:
        # Subclasses of str, int and float (numpy's, template engines'), and keys like None.
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def write_sorted_json(value: object) -> bytes:
    """The same with the members of every object in one order. Raises as `write_json` does."""
    try:
        return _encode_sorted(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True).encode()


def read_json(data: bytes) -> Any:
    """What `data` says. Raises ValueError, also where it is nested too deeply."""
    try:
        return _decode(data)
    except ValueError:
        return _read_leniently(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_strict_json(data: bytes) -> Any:
    """What `data` says; NaN and the like are no JSON. Raises UnicodeDecodeError, other ValueErrors, RecursionError."""
    try:
        return _decode(data)
    except ValueError:
        # Half an emoji, a number beyond any float: valid JSON, which msgspec refuses.
        return _STRICT.decode(data.decode())


def word_of(value: object) -> str:
    """A member that should be a word, empty where it is none: what others wrote may be a list, which no set takes."""
    return value if isinstance(value, str) else ""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_STRICT = json.JSONDecoder(parse_constant=_refuse_constant)


def _read_leniently(data: bytes) -> Any:
    """Half an emoji (an escaped lone surrogate), NaN and byte order marks, as upstreams do send them."""
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
