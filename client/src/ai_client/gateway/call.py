"""One request of a caller on its way through the gateway."""

from __future__ import annotations

import asyncio
import json
from contextvars import ContextVar
from typing import Any

from ai_client.events import Admitted, Event
from ai_client.gateway.asgi import Receive, Send
from ai_client.gateway.callers import Caller
from ai_client.gateway.failures import Failure, invalid
from ai_client.gateway.headers import Steering
from ai_client.json_text import read_strict_json
from ai_client.request import Request

# The endpoint of each path, and the field that it can't do without.
_REQUIRED = {
    "/v1/chat/completions": ("chat/completions", "messages"),
    "/v1/completions": ("completions", "prompt"),
    "/v1/embeddings": ("embeddings", "input"),
}

# The call that is being answered. Tasks that the client starts for it inherit this.
CURRENT: ContextVar[Call] = ContextVar("CURRENT")


class Call:
    """Owned by the one task that answers it."""

    __slots__ = (
        "_body",
        "_task",
        "caller",
        "has_begun",
        "is_taken_back",
        "is_waiting",
        "method",
        "path",
        "receive",
        "send",
        "steering",
    )

    def __init__(
        self,
        method: str,
        path: str,
        *,
        caller: Caller,
        steering: Steering,
        receive: Receive,
        send: Send,
        task: asyncio.Task[Any] | None,
    ) -> None:
        self.method = method
        self.path = path
        self.caller = caller
        self.steering = steering
        self.receive = receive
        self.send = send
        #: The head of a streamed answer is out.
        self.has_begun = False
        #: The client has it, and has sent nothing of it upstream yet.
        self.is_waiting = False
        self.is_taken_back = False
        self._body: bytes | None = None
        self._task = task

    def take_back(self) -> None:
        """Ends the wait for admission, where it waits."""
        if self.is_waiting and self._task is not None:
            self.is_waiting = False
            self.is_taken_back = True
            self._task.cancel()

    def ended(self) -> None:
        """It is answered. The task holds the call by its context: held back, both would wait for the collector."""
        self._task = None

    async def fail(self, failure: Failure) -> None:
        """Answer with a failure: as an event where the answer has begun already."""
        if not self.has_begun:
            await failure.send(self.send)
            return
        await self.send({"type": "http.response.body", "body": failure.event(), "more_body": True})
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def request(self, *, max_bytes: int, default_model: str) -> Request | Failure:
        """Read and check the body."""
        body = await self.body(max_bytes)
        if isinstance(body, Failure):
            return body
        parsed = _parse(body)
        return parsed if isinstance(parsed, Failure) else self._checked(parsed, default_model)

    def _checked(self, body: dict[str, Any], default_model: str) -> Request | Failure:
        endpoint, required = _REQUIRED[self.path]
        if required not in body:
            return invalid(f"The field {required} is missing.", param=required)
        if required == "messages" and not _are_messages(body["messages"]):
            return invalid("messages must be a list of objects, at least one.", param="messages")
        if not isinstance(body.setdefault("model", default_model), str):
            return invalid("model must be a text.", param="model")
        stream = body.get("stream") or False
        if not isinstance(stream, bool):
            return invalid("stream must be true or false.", param="stream")
        steering, caller = self.steering, self.caller
        return Request(
            endpoint=endpoint,
            body=body,
            stream=stream,
            priority=caller.priority if steering.priority is None else steering.priority,
            tenant=caller.tenant,
            importance=steering.importance,
            cache_mode=steering.cache_mode,
            deadline_s=steering.deadline_s,
            idempotency_key=steering.idempotency_key,
            merge=steering.merge,
        )

    async def body(self, limit_bytes: int) -> bytes | Failure:
        """The whole body, as it came."""
        if self._body is None:
            self._body = await self._read(limit_bytes)
        if self._body is None:
            message = f"The body is larger than {limit_bytes} bytes ([gateway] max_body_mb)."
            return invalid(message, code="request_too_large", status=413)
        return self._body

    async def _read(self, limit_bytes: int) -> bytes | None:
        """None where it is larger than allowed."""
        if (self.steering.content_length or 0) > limit_bytes:
            return None
        message = await self.receive()
        body: bytes = message.get("body", b"")
        if not message.get("more_body"):
            return body if len(body) <= limit_bytes else None
        pieces, size = [body], len(body)
        while message.get("more_body"):
            message = await self.receive()
            piece = message.get("body", b"")
            pieces.append(piece)
            size += len(piece)
            if size > limit_bytes:
                return None
        if message["type"] == "http.disconnect":
            # The protocol cancels this task as well; whichever comes first.
            raise asyncio.CancelledError
        return b"".join(pieces)

    def passed_headers(self) -> dict[str, str]:
        """What another process of this service needs to know of the request, the tenant included."""
        return {
            "content-type": "application/json",
            "x-ai-tenant": self.caller.tenant,
            "x-priority": str(
                self.caller.priority if self.steering.priority is None else self.steering.priority
            ),
            **self.steering.passed(),
        }


def note_admission(event: Event) -> None:
    """A listener of the client's events: a call that was admitted can't be taken back any more."""
    if isinstance(event, Admitted):
        call = CURRENT.get(None)
        if call is not None:
            call.is_waiting = False


def _parse(body: bytes) -> dict[str, Any] | Failure:
    try:
        parsed = read_strict_json(body)
    except UnicodeDecodeError:
        return invalid("The body is not UTF-8.", code="invalid_json")
    except (ValueError, RecursionError) as exc:
        reason = exc.msg if isinstance(exc, json.JSONDecodeError) else "nested too deep, or no JSON number"
        return invalid(f"The body is not JSON: {reason}.", code="invalid_json")
    if not isinstance(parsed, dict):
        return invalid("The body must be a JSON object.", code="invalid_json")
    return parsed


def _are_messages(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(part, dict) for part in value)
