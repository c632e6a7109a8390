"""From a request, as the caller means it, to one HTTP request. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ai_client.contract.apis import api_of
from ai_client.contract.keys import ApiKey
from ai_client.contract.request import Request
from ai_client.contract.upstreams import Dialect, Upstream
from ai_client.contract.written_body import encoded, with_members
from ai_client.dialects.upper_bound import bounded_fields
from ai_client.dialects.upstream_dialects import ANTHROPIC_VERSION, credentials, is_anthropics, url_of
from ai_client.errors import BadRequestError
from ai_client.transport.base import WireRequest

USER_AGENT = "ai-client"


def encode_body(
    request: Request,
    *,
    model: str | None = None,
    ask_usage: bool = False,
    output_bound: int | None = None,
    is_openai: bool = False,
) -> bytes:
    """The body as JSON, in its caller's own words where there are any; `model`, where given, replaces the one in it.

    `ask_usage` asks for the usage event at the end of a stream, which is what it is settled by; `output_bound` is
    sent where the caller set none that holds; `is_openai` says that it goes to OpenAI itself, or to Azure.
    Raises BadRequestError where the body can't be written as JSON in UTF-8.
    """
    body = request.body
    changes: dict[str, Any] = {}
    if model is not None and body.get("model") != model:
        changes["model"] = model
    if request.stream and body.get("stream") is not True:
        changes["stream"] = True
    if ask_usage:
        changes["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    if output_bound is not None:
        changes |= bounded_fields(request.endpoint, body, output_bound, is_openai=is_openai)
    try:
        return encoded(with_members(body, changes) if changes else body)
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
    upstream: Upstream,
    model: str,
    body: bytes | None,
    key: ApiKey,
    idempotency_key: str,
    request_id: str,
    on_sent: Callable[[], None] | None = None,
) -> WireRequest:
    """`model` is the upstream's own name of it. `body` None makes it a GET, where the request is no passage."""
    passage = request.passage
    if passage is None and upstream.dialect is Dialect.COMPATIBLE:
        headers = {"Authorization": key.authorization} if upstream.needs_key else {}
        url = f"{upstream.base_url}/{request.endpoint}"
    else:
        api = api_of(request.endpoint)
        headers = credentials(upstream, key, api) if upstream.needs_key else {}
        if is_anthropics(upstream, api):
            headers["anthropic-version"] = ANTHROPIC_VERSION
        path = request.endpoint if passage is None else passage.path or request.endpoint
        url = url_of(upstream, path, model=model)
    headers["Accept"] = _accepted(request)
    headers["Accept-Encoding"] = "identity"
    headers["User-Agent"] = USER_AGENT
    headers["X-Request-Id"] = request_id
    if body is not None:
        headers["Content-Type"] = "application/json" if passage is None else passage.content_type
        headers["X-Priority"] = str(request.priority)
        headers["Idempotency-Key"] = idempotency_key
    if request.headers:
        headers.update(request.headers)
    method = passage.method if passage is not None else "GET" if body is None else "POST"
    return WireRequest(method=method, url=url, headers=headers, body=body, on_sent=on_sent)


def _accepted(request: Request) -> str:
    if request.stream:
        return "text/event-stream"
    return "*/*" if request.passage is not None and request.passage.is_raw else "application/json"
