"""Reads a whole answer: its value, its usage, and whether it is one. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from msgspec import Struct, structs

from ai_client.contract.apis import api_of
from ai_client.contract.request import Usage
from ai_client.dialects.error_answers import UpstreamMessage
from ai_client.dialects.usage import drawn_of, of_pictures, searches_of, usage_from_json
from ai_client.dialects.verdict import fault_of, is_plain_answer, missing_of
from ai_client.platform.json_text import read_json

# Larger lists of vectors are not parsed only to learn their usage, which stands at one end of them.
_LARGE_BYTES: Final = 64 * 1024
_ENDS_BYTES: Final = 4 * 1024
#: Each value of a parsed answer takes up to a hundred bytes, however short its text is.
MOST_VALUES: Final = 2_000_000
_SURELY_FEW_BYTES: Final = 1024 * 1024
_PICTURES: Final = frozenset(("images/generations", "images/edits", "images/variations"))
_ONLY_READ: Final = frozenset(("embeddings", "rerank"))
_USAGE: Final = re.compile(rb'"usage"\s*:\s*(\{[^{}]*\})')
_VECTOR: Final = re.compile(rb'"embedding"\s*:')
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_VECTORS: Final = re.compile(rb'\s*\{[^\[\]]{0,2000}"data"\s*:\s*\[\s*\{')


class BodyVerdict(Struct, frozen=True):
    """`value` is None for large vectors, and where it is no answer."""

    value: Any = None
    usage: Usage | None = None
    #: What the upstream says went wrong.
    fault: UpstreamMessage | None = None
    #: Why it is no answer, where the upstream does not say so: the end of "answered with …".
    trouble: str | None = None


def read_answer(
    body: bytes, headers: Mapping[str, str], endpoint: str, asked: Mapping[str, Any] = _NOTHING
) -> BodyVerdict:
    """The verdict on a whole answer of 200 to `asked`, a request of one of `contract.apis`. Never raises.

    What is asked for may be sound or a file, and what is read back may be the failure of something stored.
    """
    api = api_of(endpoint)
    if api.removes and not body.strip():
        return BodyVerdict()  # a 204, or as little: it is gone
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if api.is_raw and not kind.endswith("json"):
        return _read_raw(body, kind, endpoint)
    verdict = read_body(body, endpoint)
    if endpoint == "embeddings" and verdict.fault is None and verdict.trouble is None:
        return _with_all_vectors(verdict, body, texts=_texts_of(asked.get("input")))
    if api.is_raw and verdict.trouble is not None:
        return BodyVerdict()
    if not api.is_metered and verdict.fault is not None:
        return BodyVerdict(value=read_json(body))
    return verdict


def _read_raw(body: bytes, kind: str, endpoint: str) -> BodyVerdict:
    """Sound, or a text of it: a page is neither, nor is an error in JSON that came without a type."""
    if not endpoint.startswith("audio/"):
        return BodyVerdict()
    if kind == "text/html" or (endpoint == "audio/speech" and (not body or kind == "text/plain")):
        return BodyVerdict(trouble=f"something that is no sound ({_begin(body)})")
    if body[:1] == b"{" and len(body) <= _LARGE_BYTES:
        fault = read_body(body, endpoint).fault
        if fault is not None:
            return BodyVerdict(fault=fault)
    return BodyVerdict()


def read_body(body: bytes, endpoint: str) -> BodyVerdict:
    """The verdict on a body that should be a JSON object. Never raises."""
    if endpoint == "embeddings" and len(body) > _LARGE_BYTES:
        known = _vectors(body)
        if known is not None:
            return known
    if len(body) > _SURELY_FEW_BYTES and body.count(b",") + body.count(b"[") + body.count(b"{") > MOST_VALUES:
        return BodyVerdict(trouble=f"an object of over {MOST_VALUES:,} values")
    try:
        value = read_json(body)
    except ValueError:
        return BodyVerdict(trouble=f"something that is not JSON ({_begin(body)})")
    if isinstance(value, dict):
        return _judged(value, endpoint)
    if isinstance(value, list) and endpoint == "models":
        return BodyVerdict(value=value)
    return BodyVerdict(trouble="something that is not a JSON object")


def _judged(value: dict[str, Any], endpoint: str) -> BodyVerdict:
    if endpoint == "chat/completions" and is_plain_answer(value):
        return BodyVerdict(
            value=value, usage=usage_from_json(value.get("usage"), tier=value.get("service_tier"))
        )
    return judged_whole(value, endpoint)


def judged_whole(value: dict[str, Any], endpoint: str) -> BodyVerdict:
    """The verdict on an object of any form."""
    told = value.get("usage")
    if told is None and endpoint == "rerank":  # Cohere's
        told = value.get("meta")
    if told is None and "duration" in value and endpoint.startswith("audio/"):
        told = {"seconds": value["duration"]}
    if "output" in value:  # a response's, which tells more beside its usage
        beside: tuple[int, object] = searches_of(value), drawn_of(value)
    else:
        beside = 0, None
    usage = usage_from_json(told, tier=value.get("service_tier"), searches=beside[0], drawn=beside[1])
    usage = of_pictures(usage, told) if endpoint in _PICTURES else _of_input(usage, endpoint)
    fault = fault_of(value)
    if fault is not None:
        return BodyVerdict(usage=usage, fault=fault)
    missing = missing_of(value, endpoint)
    if missing is not None:
        return BodyVerdict(usage=usage, trouble=f"an object that {missing}")
    return BodyVerdict(value=value, usage=usage)


def _of_input(usage: Usage | None, endpoint: str) -> Usage | None:
    """Where nothing is written a sum that is told alone (Voyage's) is of what was read."""
    if usage is None or usage.input_tokens or endpoint not in _ONLY_READ:
        return usage
    return structs.replace(usage, input_tokens=usage.output_tokens, output_tokens=0)


def _vectors(body: bytes) -> BodyVerdict | None:
    """The usual shape of an answer with vectors, from its two ends; None where it looks otherwise."""
    begin, end = body[:_ENDS_BYTES], body[-_ENDS_BYTES:]
    if _VECTORS.match(begin) is None or not end.rstrip().endswith(b"}") or b'"error"' in begin + end:
        return None
    found = _USAGE.findall(end) or _USAGE.findall(begin)
    if not found:
        return None
    try:
        return BodyVerdict(usage=_of_input(usage_from_json(json.loads(found[-1])), "embeddings"))
    except ValueError:
        return None


def _texts_of(given: object) -> int:
    """How many vectors are asked for: a list of numbers is one text."""
    return 1 if not isinstance(given, list) or all(type(each) is int for each in given) else len(given)


def _with_all_vectors(verdict: BodyVerdict, body: bytes, *, texts: int) -> BodyVerdict:
    """Callers match vectors with their texts by their places, so that of a few none is worth anything."""
    if texts < 2:
        return verdict
    data = verdict.value.get("data") if isinstance(verdict.value, dict) else None
    came = len(data) if isinstance(data, list) else len(_VECTOR.findall(body))
    if not came or came >= texts:
        return verdict
    return structs.replace(verdict, value=None, trouble=f"{came} vectors for {texts} texts")


def _begin(body: bytes) -> str:
    """How it begins, for people: a sign-in page of a network, mostly."""
    text = " ".join(body[:200].decode("utf-8", "replace").split())
    return f"it begins with {text[:60]!r}" if text else "it is empty"
