"""The few types of ASGI that a bare application needs, and its two ways to answer."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from types import MappingProxyType
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

# What stands in the place of an address in the scope of a caller on a Unix socket; its uid is where the port is.
UID_MARK = "@uid"

JSON_TYPE = (b"content-type", b"application/json")
_NO_MORE: Mapping[str, object] = MappingProxyType({})


async def respond(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """A whole answer."""
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def respond_json(send: Send, status: int, value: object, headers: Headers | None = None) -> None:
    """A whole answer in JSON."""
    body = json.dumps(value, separators=(",", ":")).encode()
    await respond(send, status, [JSON_TYPE, *(headers or [])], body)


def error_body(
    *, kind: str, code: str, message: str, param: str | None = None, more: Mapping[str, object] = _NO_MORE
) -> bytes:
    """An error as OpenAI's clients know it, with `more` members."""
    error = {**more, "message": message, "type": kind, "param": param, "code": code}
    return json.dumps({"error": error}).encode()
