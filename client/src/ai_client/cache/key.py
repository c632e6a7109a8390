"""Which requests may share one answer: the cache key (docs/adr/0013-cache-key.md).

The rule is safety first: two requests have one key only if an upstream can't tell them apart in its answer. Whatever
this module does not know is part of the key.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from ai_client.platform.json_text import write_json, write_sorted_json

KEY_VERSION: Final = 2
KEY_BYTES: Final = 32

# Members that OpenAI's reference describes as labels for abuse detection or for placing prompts near their cached
# prefixes: they can't change an answer.
_LABELS: Final = frozenset({"user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"})

# Members whose objects mean the same in any order. Every other object keeps its order, because models write the
# properties of a JSON schema (in `tools`, `response_format` and unknown extensions) in the order it declares them.
_ORDER_FREE: Final = frozenset({"messages", "input", "prompt", "logit_bias", "stream_options", "stop"})


def cache_key(
    *, scope: str, tenant: str, endpoint: str, stream: bool, body: Mapping[str, Any]
) -> bytes | None:
    """32 bytes that are equal only for requests that may share an answer; None for a body that is not JSON.

    `scope` names the upstream, so that a simulator's answers never come back from production. A recorded stream
    and a whole answer are different bytes, so `stream` is a part of the key.
    """
    plain: dict[str, object] = {}
    ordered: list[tuple[str, object]] = []
    for name, value in body.items():
        if name in _LABELS or name == "stream" or (name == "metadata" and not body.get("store")):
            continue
        if type(value) is float and value.is_integer():
            plain[name] = int(value)
        elif isinstance(value, (dict, list, tuple)) and name not in _ORDER_FREE:
            ordered.append((name, value))
        else:
            plain[name] = value
    try:
        text = write_sorted_json([KEY_VERSION, scope, tenant, endpoint, stream, plain])
        if ordered:
            # Two JSON documents in a row can be read apart again, so no two pairs of them are one text.
            text += write_json(sorted(ordered, key=_name))
    except (TypeError, ValueError, RecursionError):
        return None
    return hashlib.sha256(text).digest()


def _name(member: tuple[str, object]) -> str:
    return member[0]
