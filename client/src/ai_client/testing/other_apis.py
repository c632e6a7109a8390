"""The simulated APIs beside chat, completions and embeddings: what each path answers, and what is kept."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ai_client.dialects.forms import is_form, parts_of
from ai_client.errors import BadRequestError
from ai_client.testing import messages_api, replies, responses_api
from ai_client.testing.replies import Json

_JSON = "application/json"
# The smallest picture there is: one transparent point.
_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
IMAGE_TOKENS = 272
_POSTS = frozenset(
    (
        "responses",
        "responses/compact",
        "responses/input_tokens",
        "messages",
        "messages/count_tokens",
        "images/generations",
        "images/edits",
        "images/variations",
        "audio/speech",
        "audio/transcriptions",
        "audio/translations",
        "moderations",
        "rerank",
        "files",
    )
)


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer, or the events of a stream."""

    body: bytes = b""
    status: int = 200
    content_type: str = _JSON
    events: list[bytes] | None = None


@dataclass(slots=True)
class OtherApis:
    """What one simulator keeps: of each key its own."""

    responses: dict[tuple[str, str], tuple[Json, Mapping[str, Any]]] = field(default_factory=dict)
    files: dict[tuple[str, str], tuple[Json, bytes]] = field(default_factory=dict)

    @staticmethod
    def knows(method: str, path: str) -> bool:
        """Whether there is such a path."""
        name = path.removeprefix("/v1/")
        if method == "POST":
            return name in _POSTS or (name.startswith("responses/") and name.endswith("/cancel"))
        return method in ("GET", "DELETE") and name.partition("/")[0] in ("responses", "files")

    def answer(
        self, method: str, path: str, body: Mapping[str, Any], *, content: bytes, key: str, serial: int
    ) -> Reply:
        """The answer to a request of a path that is known."""
        name = path.removeprefix("/v1/")
        first, _, rest = name.partition("/")
        if first == "responses":
            return self._responses(method, rest, body, key=key, serial=serial)
        if first == "files":
            return self._files(method, rest, body, content=content, key=key, serial=serial)
        return _stateless(name, body, serial)

    def _responses(self, method: str, rest: str, body: Mapping[str, Any], *, key: str, serial: int) -> Reply:
        if method == "POST" and rest == "compact":
            return _whole(responses_api.compacted(body, serial))
        if method == "POST" and rest == "input_tokens":
            tokens = replies.count_tokens(responses_api.prompt_of(body))
            return _whole({"object": "response.input_tokens", "input_tokens": tokens})
        if method == "POST" and not rest:
            return self._create(body, key=key, serial=serial)
        name, _, verb = rest.partition("/")
        kept = self.responses.get((key, name))
        if kept is None:
            message = f"Response with id '{name}' not found."
            return _whole(replies.error(message, kind="invalid_request_error", code=None), status=404)
        found, asked = kept
        if method == "DELETE":
            del self.responses[key, name]
            return _whole({"id": name, "object": "response", "deleted": True})
        if verb == "cancel":
            found["status"] = "cancelled"
        elif not verb and found["status"] in ("queued", "in_progress"):
            # Whoever asks again is told what comes next.
            after = responses_api.gone_on(found, asked, int(name.rpartition("_")[2]))
            self.responses[key, name] = after, asked
        return _whole(responses_api.input_items(asked) if verb == "input_items" else found)

    def _create(self, body: Mapping[str, Any], *, key: str, serial: int) -> Reply:
        before = body.get("previous_response_id")
        if before is not None and (key, before) not in self.responses:
            message = f"Previous response with id '{before}' not found."
            code = "previous_response_not_found"
            return _whole(replies.error(message, kind="invalid_request_error", code=code), status=400)
        is_later = bool(body.get("background")) and not body.get("stream")
        whole = responses_api.response(body, serial, status="queued" if is_later else "completed")
        if body.get("store", True) is not False:
            self.responses[key, whole["id"]] = whole, body
        if body.get("stream"):
            return Reply(content_type="text/event-stream", events=responses_api.stream(body, serial))
        return _whole(whole)

    def _files(
        self, method: str, rest: str, body: Mapping[str, Any], *, content: bytes, key: str, serial: int
    ) -> Reply:
        if method == "POST":
            name = f"file-{serial:08d}"
            about = {
                "id": name,
                "object": "file",
                "bytes": len(content),
                "created_at": replies.CREATED_S,
                "filename": "upload",
                "purpose": body.get("purpose", "user_data"),
                "status": "processed",
            }
            self.files[key, name] = about, content
            return _whole(about)
        if not rest:
            mine = [about for (owner, _), (about, _) in self.files.items() if owner == key]
            return _whole({"object": "list", "data": mine, "has_more": False})
        name, _, verb = rest.partition("/")
        kept = self.files.get((key, name))
        if kept is None:
            message = f"No such File object: {name}"
            return _whole(replies.error(message, kind="invalid_request_error", code=None), status=404)
        if method == "DELETE":
            del self.files[key, name]
            return _whole({"id": name, "object": "file", "deleted": True})
        if verb == "content":
            return Reply(kept[1], content_type="application/octet-stream")
        return _whole(kept[0])


def _stateless(name: str, body: Mapping[str, Any], serial: int) -> Reply:
    if name.startswith("messages"):
        return _messages(name, body, serial)
    if name.startswith("images/"):
        return _images(body)
    if name.startswith("audio/"):
        return _audio(name, body)
    return _moderated(body, serial) if name == "moderations" else _reranked(body)


def _messages(name: str, body: Mapping[str, Any], serial: int) -> Reply:
    if name == "messages/count_tokens":
        return _whole({"input_tokens": replies.count_tokens(messages_api.prompt_of(body))})
    if not body.get("stream"):
        return _whole(messages_api.message(body, serial))
    events = messages_api.stream(body, serial)
    return Reply(content_type="text/event-stream; charset=utf-8", events=events)


def _moderated(body: Mapping[str, Any], serial: int) -> Reply:
    scores = {"violence": 0.01, "hate": 0.0}
    result = {"flagged": False, "categories": dict.fromkeys(scores, False), "category_scores": scores}
    model = body.get("model") or "omni-moderation-latest"
    return _whole({"id": f"modr-{serial}", "model": model, "results": [result]})


def _images(body: Mapping[str, Any]) -> Reply:
    count = int(body.get("n") or 1)
    prompt_tokens = replies.count_tokens(str(body.get("prompt", "")))
    usage = {
        "input_tokens": prompt_tokens,
        "input_tokens_details": {"text_tokens": prompt_tokens, "image_tokens": 0},
        "output_tokens": IMAGE_TOKENS * count,
        "total_tokens": prompt_tokens + IMAGE_TOKENS * count,
    }
    pictures = [{"b64_json": base64.b64encode(_PIXEL).decode()} for _ in range(count)]
    if str(body.get("stream")).lower() == "true":
        event = {"type": "image_generation.completed", "usage": usage} | pictures[0]
        return Reply(content_type="text/event-stream", events=[responses_api.event_bytes(event)])
    return _whole({"created": replies.CREATED_S, "data": pictures, "usage": usage})


def _audio(name: str, body: Mapping[str, Any]) -> Reply:
    if name == "audio/speech":
        return Reply(b"RIFF" + str(body.get("input", "")).encode(), content_type="audio/mpeg")
    text = "hello world"
    usage = {"type": "tokens", "input_tokens": 14, "output_tokens": 2, "total_tokens": 16}
    if body.get("response_format") == "text":
        return Reply(text.encode() + b"\n", content_type="text/plain; charset=utf-8")
    if str(body.get("stream")).lower() == "true":
        events: list[Json] = [
            {"type": "transcript.text.delta", "delta": text},
            {"type": "transcript.text.done", "text": text, "usage": usage},
        ]
        return Reply(
            content_type="text/event-stream", events=[responses_api.event_bytes(each) for each in events]
        )
    return _whole({"text": text, "usage": usage})


def _reranked(body: Mapping[str, Any]) -> Reply:
    documents = list(body.get("documents") or ())
    query = set(str(body.get("query", "")).lower().split())
    scored = []
    for index, document in enumerate(documents):
        text = document if isinstance(document, str) else str(document.get("text", ""))
        words = set(text.lower().split())
        scored.append({"index": index, "relevance_score": len(query & words) / (len(query | words) or 1)})
    scored.sort(key=lambda each: -float(each["relevance_score"]))
    tokens = sum(replies.count_tokens(str(document)) for document in documents)
    results = scored[: int(body.get("top_n") or len(scored))]
    return _whole({"model": body.get("model"), "results": results, "usage": {"total_tokens": tokens}})


def _whole(value: Json, *, status: int = 200) -> Reply:
    return Reply(replies.encode(value), status=status)


def form_body(content: bytes, content_type: str) -> tuple[Json, bytes] | None:
    """The fields of a form, and the content of its first file; None where it is no form."""
    if not is_form(content_type):
        return None
    try:
        parts = parts_of(content, content_type)
    except BadRequestError:
        return None
    fields = {part.name: part.content.decode("utf-8", "replace") for part in parts if part.filename is None}
    files = [part for part in parts if part.filename is not None]
    return fields | {part.name: len(part.content) for part in files}, files[0].content if files else b""
