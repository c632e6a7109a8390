"""One request of a caller on its way through the gateway."""

from __future__ import annotations

import asyncio
import codecs
import hashlib
import json
from typing import Any

from ai_client.contract.apis import Family
from ai_client.contract.request import NO_HEADERS, Passage, Request
from ai_client.contract.written_body import with_members, written
from ai_client.errors import DeadlineExceeded
from ai_client.gateway.app import body_checks
from ai_client.gateway.app.body_room import SMALL_BYTES, BodyRoom
from ai_client.gateway.app.callers import Caller
from ai_client.gateway.app.failures import Failure, invalid
from ai_client.gateway.app.headers import Steering
from ai_client.gateway.app.packed_bodies import unpacked
from ai_client.gateway.app.routes import family_of
from ai_client.gateway.http.asgi import Receive, Send
from ai_client.platform.json_text import read_strict_json

# The paths that take a request for a model: the endpoint of each, and the field that it can't do without.
ENDPOINTS = {
    "/v1/chat/completions": ("chat/completions", "messages"),
    "/v1/completions": ("completions", "prompt"),
    "/v1/embeddings": ("embeddings", "input"),
}


class IncomingCall:
    """Owned by the one task that answers it."""

    __slots__ = (
        "_body",
        "_held_bytes",
        "_room",
        "_task",
        "arrived_s",
        "caller",
        "has_begun",
        "is_taken_back",
        "is_waiting",
        "method",
        "path",
        "query",
        "receive",
        "send",
        "sends_events",
        "steering",
        "timer",
    )

    def __init__(
        self,
        method: str,
        path: str,
        *,
        query: bytes = b"",
        caller: Caller,
        steering: Steering,
        receive: Receive,
        send: Send,
        task: asyncio.Task[Any] | None,
        arrived_s: float,
        room: BodyRoom,
    ) -> None:
        #: When its head was there, in the loop's time: the caller's deadline counts from then.
        self.arrived_s = arrived_s
        self.method = method
        self.path = path
        self.query = query
        self.caller = caller
        self.steering = steering
        self.receive = receive
        self.send = send
        #: The head of a streamed answer is out.
        self.has_begun = False
        #: What can't be told as one more event, behind sound for example, is told by the connection's end.
        self.sends_events = True
        #: The client has it, and has been given no leave yet to send it upstream.
        self.is_waiting = False
        self.is_taken_back = False
        #: Ends it where it has a deadline.
        self.timer: asyncio.Timeout | None = None
        self._body: bytes | None = None
        self._room = room
        self._held_bytes = 0
        self._task = task

    @property
    def family(self) -> Family:
        """Whose errors the caller understands."""
        return family_of(self.path)

    @property
    def target(self) -> str:
        """The path with its query."""
        return f"{self.path}?{self.query.decode('latin-1')}" if self.query else self.path

    @property
    def idempotency_key(self) -> str | None:
        """The caller's key as the upstream gets it: two tenants that chose the same one must not share an answer."""
        key = self.steering.idempotency_key
        if key is None:
            return None
        return hashlib.sha256(f"{self.caller.tenant}\0{key}".encode()).hexdigest()

    def take_back(self) -> None:
        """Ends the wait for admission, where it waits."""
        if self.is_waiting and self._task is not None:
            self.is_waiting = False
            self.is_taken_back = True
            self._task.cancel()

    def admitted(self) -> None:
        """It may be sent upstream, or shares what another sends: from here on it can't be taken back."""
        self.is_waiting = False

    def remaining_s(self, now_s: float) -> float | None:
        """What is left of the time that the caller gave; None where it gave none."""
        deadline_s = self.steering.deadline_s
        return None if deadline_s is None else deadline_s - (now_s - self.arrived_s)

    def ends_s(self, more_s: float) -> float | None:
        """So much after its deadline, in the loop's time; None where it has none."""
        deadline_s = self.steering.deadline_s
        return None if deadline_s is None else self.arrived_s + deadline_s + more_s

    def begun(self, *, buffer_s: float) -> None:
        """The head of a streamed answer is out: from now on it ends so much after its deadline, and not before."""
        self.has_begun = True
        if self.timer is not None:
            self.timer.reschedule(self.ends_s(buffer_s))

    def deadline_error(self, phase: str) -> DeadlineExceeded:
        """That its time is over, in a phase of its way ("queue" or "upstream")."""
        return DeadlineExceeded("request", deadline_s=self.steering.deadline_s or 0.0, phase=phase)

    def ended(self) -> None:
        """It is answered. A reference to a task that has ended keeps its whole frame alive."""
        self._task = self.timer = None
        if self._held_bytes:
            self._room.give_back(self.caller.tenant, self._held_bytes)
            self._held_bytes = 0

    async def fail(self, failure: Failure) -> None:
        """Answer with a failure: as an event where the answer has begun already, or by breaking it off."""
        if not self.has_begun:
            await failure.send(self.send, self.family)
            return
        if not self.sends_events:
            await self.send({"type": "http.response.abort"})
            return
        event = failure.event(self.family)
        await self.send({"type": "http.response.body", "body": event, "more_body": True})
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def request(self, *, max_bytes: int, default_model: str) -> Request | Failure:
        """Read and check the body."""
        body = await self.body(max_bytes)
        if isinstance(body, Failure):
            return body
        parsed = parse(body)
        return parsed if isinstance(parsed, Failure) else self._checked(parsed, default_model)

    def _checked(self, body: dict[str, Any], default_model: str) -> Request | Failure:
        endpoint, required = ENDPOINTS[self.path]
        if endpoint == "embeddings" and "messages" in body and "input" not in body:
            required = "messages"  # of models that embed pictures: vLLM's
        if required not in body:
            return invalid(f"The field {required} is missing.", param=required)
        if required == "messages" and not are_messages(body["messages"]):
            return invalid("messages must be a list of objects, at least one.", param="messages")
        if "model" not in body:
            body = with_members(body, {"model": default_model})
        if not isinstance(body["model"], str):
            return invalid("model must be a text.", param="model")
        stream = body.get("stream") or False
        if not isinstance(stream, bool):
            return invalid("stream must be true or false.", param="stream")
        return self.as_request(endpoint, body, stream=stream)

    def as_request(
        self, endpoint: str, body: dict[str, Any], *, stream: bool, passage: Passage | None = None
    ) -> Request:
        """What the client is asked: the body, and what the caller's headers steer."""
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
            idempotency_key=self.idempotency_key,
            merge=steering.merge,
            headers=steering.provider_headers or NO_HEADERS,
            passage=passage,
            on_admitted=self.admitted,
        )

    async def body(self, limit_bytes: int) -> bytes | Failure:
        """The whole body, as it came but for its compression."""
        if self._body is None:
            body = await self._read(limit_bytes)
            if isinstance(body, bytes) and self.steering.content_encoding:
                body = self._unpacked(body, limit_bytes)
            if isinstance(body, Failure):
                return body
            self._body = body
        return self._body

    def _unpacked(self, packed: bytes, limit_bytes: int) -> bytes | Failure:
        """The body without its compression, in memory that it may take."""
        body = unpacked(packed, self.steering.content_encoding, limit_bytes=limit_bytes)
        if isinstance(body, Failure):
            return body
        return self._hold(max(len(body), self._held_bytes), limit_bytes) or body

    async def _read(self, limit_bytes: int) -> bytes | Failure:
        if (self.steering.content_length or 0) > limit_bytes:
            return _too_large(limit_bytes)
        message = await self.receive()
        body: bytes = message.get("body", b"")
        if not message.get("more_body") and len(body) <= SMALL_BYTES:
            return body if len(body) <= limit_bytes else _too_large(limit_bytes)
        pieces, size = [body], len(body)
        refusal = self._hold(size, limit_bytes)
        while refusal is None and message.get("more_body"):
            message = await self.receive()
            piece = message.get("body", b"")
            pieces.append(piece)
            size += len(piece)
            refusal = self._hold(size, limit_bytes)
        if refusal is not None:
            return refusal
        if message["type"] == "http.disconnect":
            # The protocol cancels this task as well; whichever comes first.
            raise asyncio.CancelledError
        return b"".join(pieces)

    def _hold(self, size: int, limit_bytes: int) -> Failure | None:
        """Takes memory for a body of which so much has come."""
        if size > limit_bytes:
            return _too_large(limit_bytes)
        if size <= SMALL_BYTES:
            return None
        if not self._room.take(self.caller.tenant, size - self._held_bytes):
            message = "The bodies of requests under way take all memory that they may; send it again."
            return Failure(503, "overloaded_error", "bodies_in_flight", message, None, 1.0, may_retry=True)
        self._held_bytes = size
        return None

    def passed_headers(self) -> dict[str, str]:
        """What another process of this service needs to know of the request, the tenant included."""
        return {
            "content-type": self.steering.content_type.decode("latin-1") or "application/json",
            "x-ai-tenant": self.caller.tenant,
            "x-priority": str(
                self.caller.priority if self.steering.priority is None else self.steering.priority
            ),
            **self.steering.passed(),
        }


def _too_large(limit_bytes: int) -> Failure:
    message = f"The body is larger than {limit_bytes} bytes ([gateway] max_body_mb)."
    return invalid(message, code="request_too_large", status=413)


def parse(body: bytes) -> dict[str, Any] | Failure:
    """A JSON object, with nothing in it that can't be taken."""
    body = body.removeprefix(codecs.BOM_UTF8)  # PowerShell's files begin with it
    if not body:
        return invalid("The body is empty: send a JSON object.", code="invalid_json")
    if too_many := body_checks.too_many_values(body):
        return too_many
    try:
        parsed = read_strict_json(body)
    except UnicodeDecodeError:
        return invalid("The body is not UTF-8.", code="invalid_json")
    except (ValueError, RecursionError) as exc:
        reason = exc.msg if isinstance(exc, json.JSONDecodeError) else "nested too deep, or no JSON number"
        return invalid(f"The body is not JSON: {reason}.", code="invalid_json")
    if not isinstance(parsed, dict):
        return invalid("The body must be a JSON object.", code="invalid_json")
    return body_checks.refusal_of(parsed, body) or written(parsed, body)


def are_messages(value: object) -> bool:
    """A list of objects, at least one."""
    return isinstance(value, list) and bool(value) and all(isinstance(part, dict) for part in value)
