"""What a request asks of the simulator, and the refusal where it can't be answered."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from ai_client.testing import messages_api, replies
from ai_client.testing.likeness import Likeness
from ai_client.testing.other_apis import form_body
from ai_client.testing.replies import Json
from ai_client.testing.wire import ReceivedRequest

POSTS: Final = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
NOTHING: Final[Json] = {}

Refusal = tuple[int, Json]

WRONG_KEY: Final[Refusal] = (
    401,
    replies.error("Incorrect API key provided.", kind="invalid_request_error", code="invalid_api_key"),
)


def read_plain_body(
    request: ReceivedRequest, models: tuple[str, ...], *, has_list: bool
) -> tuple[dict[str, Any], Refusal | None]:
    """Of chat, completions and embeddings, and of the list of models where there is one."""
    if has_list and request.method == "GET" and request.path.startswith("/v1/models"):
        return NOTHING, None
    if request.method != "POST" or request.path not in POSTS:
        message = f"Unknown request URL: {request.method} {request.path}."
        return NOTHING, (404, replies.error(message, kind="invalid_request_error", code="unknown_url"))
    try:
        body = json.loads(request.body)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        message = "We could not parse the JSON body of your request."
        return NOTHING, (400, replies.error(message, kind="invalid_request_error", code=None))
    model = body.get("model")
    if model not in models:
        message = f"The model `{model}` does not exist."
        return body, (404, replies.error(message, kind="invalid_request_error", code="model_not_found"))
    return body, None


def read_body(request: ReceivedRequest, models: tuple[str, ...]) -> tuple[dict[str, Any], Refusal | None]:
    """Of the other APIs."""
    form = form_body(request.body, request.headers.get("content-type", ""))
    is_message = request.path.startswith("/v1/messages")
    try:
        body = form[0] if form else json.loads(request.body or b"{}")
    except ValueError:
        body = None
    if not isinstance(body, dict):
        message = "We could not parse the body of your request."
        return {}, (400, replies.error(message, kind="invalid_request_error", code=None))
    if is_message and messages_api.VERSION_HEADER not in request.headers:
        message = f"{messages_api.VERSION_HEADER}: header is required"
        return body, (400, messages_api.error(message, kind="invalid_request_error"))
    model = body.get("model")
    if model is None or model in models:
        return body, None
    if is_message:
        return body, (404, messages_api.error(f"model: {model}", kind="not_found_error"))
    message = f"The model `{model}` does not exist."
    return body, (404, replies.error(message, kind="invalid_request_error", code="model_not_found"))


def key_of(request: ReceivedRequest, like: Likeness) -> str:
    """As OpenAI, Anthropic or Azure are signed to; of a likeness the one way that the provider takes."""
    headers = request.headers
    if like.bearer_for and request.path.endswith(like.bearer_for):
        return headers.get("authorization", "").removeprefix("Bearer ")
    if like.key_header != "authorization":
        return headers.get(like.key_header, "")
    given = headers.get("x-api-key") or headers.get("api-key") or headers.get("authorization", "")
    return given.removeprefix("Bearer ")


def fingerprint(key: str) -> str:
    """What stands for a key in counters and control routes, as everywhere in the project."""
    return hashlib.sha256(key.encode()).hexdigest()[:12]
