"""From a request, as the caller means it, to one HTTP request. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ai_client.errors import BadRequestError
from ai_client.json_text import write_json
from ai_client.keys import ApiKey
from ai_client.request import Request
from ai_client.transport.base import WireRequest

USER_AGENT = "ai-client"


def encode_body(request: Request, *, model: str | None = None, ask_usage: bool = False) -> bytes:
    """The body as JSON; `model`, where given, replaces the one that the caller named.

    `ask_usage` asks for the usage event at the end of a stream, which is what it is settled by.
    Raises BadRequestError where the body can't be written as JSON in UTF-8.
    """
    body = request.body
    changes: dict[str, Any] = {}
    if model is not None and body.get("model") != model:
        changes["model"] = model
    if request.stream and body.get("stream") is not True:
        changes["stream"] = True
    if ask_usage:
        changes["stream_options"] = {"include_usage": True}
    if changes:
        body = {**body, **changes}
    try:
        return write_json(body)
    except UnicodeEncodeError as error:
        raise BadRequestError(
            "request body",
            "holds half of a surrogate pair, which is no text",
            remedy="Send whole characters: a text was cut within one, or decoded with 'surrogateescape'.",
        ) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRequestError("request body", f"can't be written as JSON: {error}") from error


def build_wire_request(
    request: Request,
    *,
    base_url: str,
    body: bytes | None,
    key: ApiKey,
    idempotency_key: str,
    request_id: str,
    on_sent: Callable[[], None] | None = None,
) -> WireRequest:
    """`body` None makes it a GET."""
    headers = {
        "Authorization": key.authorization,
        "Accept": "text/event-stream" if request.stream else "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": USER_AGENT,
        "X-Request-Id": request_id,
    }
    if body is not None:
        headers["Content-Type"] = "application/json"
        headers["X-Priority"] = str(request.priority)
        headers["Idempotency-Key"] = idempotency_key
    return WireRequest(
        method="GET" if body is None else "POST",
        url=f"{base_url}/{request.endpoint}",
        headers=headers,
        body=body,
        on_sent=on_sent,
    )
