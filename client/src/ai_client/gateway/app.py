"""The gateway as a bare ASGI application: who calls, what is asked, and the answer passed on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from ai_client.errors import AIClientError
from ai_client.gateway import failures, headers
from ai_client.gateway.asgi import Receive, Scope, Send, respond, respond_json
from ai_client.gateway.callers import UID_MARK, Caller, Doorkeeper, HostCheck, Refusal
from ai_client.gateway.failures import Failure, invalid
from ai_client.gateway.headers import Steering
from ai_client.gateway.upstream import Upstream
from ai_client.request import Request

# The field that each endpoint can't do without, by path.
_REQUIRED = {
    "/v1/chat/completions": ("chat/completions", "messages"),
    "/v1/completions": ("completions", "prompt"),
    "/v1/embeddings": ("embeddings", "input"),
}
DRAIN_RETRY_S = 1.0


class Control(Protocol):
    """What the operator's routes and `/health` can ask of the service."""

    async def reload(self) -> tuple[bool, dict[str, Any]]:
        """Read configuration and key anew: whether it worked, and what to tell."""
        ...

    async def health(self) -> dict[str, Any]:
        """All checks, as `ai_client.health.as_json` gives them."""
        ...


class Users:
    """Counts the requests that go by one configuration, so that it is known when the last has ended."""

    __slots__ = ("_gone", "count")

    def __init__(self) -> None:
        self.count = 0
        self._gone: asyncio.Event | None = None

    def leave(self) -> None:
        """One has ended."""
        self.count -= 1
        if self.count == 0 and self._gone is not None:
            self._gone.set()

    async def gone(self) -> None:
        """Waits for the last. No other may come meanwhile."""
        if self.count:
            self._gone = asyncio.Event()
            await self._gone.wait()


@dataclass(frozen=True, slots=True)
class Runtime:
    """What one configuration makes of the gateway; a reload puts another in its place, whole."""

    upstream: Upstream
    doorkeeper: Doorkeeper
    host_check: HostCheck
    default_model: str
    max_body_bytes: int
    users: Users


class GatewayApp:
    """The ASGI application. `runtime` may be replaced at any time: a request keeps the one it began with."""

    def __init__(self, runtime: Runtime, *, control: Control) -> None:
        self.runtime = runtime
        self.is_draining = False
        self._control = control
        self._routes: dict[tuple[str, str], Callable[[_Call], Awaitable[None]]] = {
            ("POST", "/v1/chat/completions"): self._complete,
            ("POST", "/v1/completions"): self._complete,
            ("POST", "/v1/embeddings"): self._complete,
            ("GET", "/v1/models"): self._models,
            ("GET", "/health"): self._health,
            ("POST", "/control/reload"): self._reload,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        runtime = self.runtime
        steering = headers.read(scope["headers"])
        if isinstance(steering, Failure):
            await steering.send(send)
            return
        caller = self._admit(runtime, scope["client"], steering)
        if isinstance(caller, Failure):
            await caller.send(send)
            return
        route = self._routes.get((scope["method"], scope["path"]))
        if route is None:
            await self._unknown(scope).send(send)
            return
        call = _Call(runtime, scope["path"], caller, steering, receive, send)
        users = runtime.users
        users.count += 1
        try:
            await route(call)
        except AIClientError as exc:
            await call.fail(failures.from_error(exc))
        except asyncio.CancelledError:
            # Either the caller has left, and nobody reads this any more, or the drain is over.
            if self.is_draining:
                await call.fail(failures.draining(DRAIN_RETRY_S))
        finally:
            users.leave()

    @staticmethod
    def _admit(runtime: Runtime, client: tuple[str, int] | None, steering: Steering) -> Caller | Failure:
        if client is not None and client[0] == UID_MARK:
            known: Caller | Refusal = runtime.doorkeeper.by_uid(client[1])
        else:
            refusal = runtime.host_check.refusal(host=steering.host, origin=steering.origin)
            known = refusal or runtime.doorkeeper.by_token(steering.authorization)
        if isinstance(known, Refusal):
            kind = "authentication_error" if known.status == 401 else "permission_error"
            return Failure(known.status, kind, known.code, known.message)
        if steering.tenant in (None, known.tenant):
            return known
        if not known.is_operator:
            message = f"You are tenant {known.tenant} and may not act for another."
            return Failure(403, "permission_error", "tenant_not_allowed", message, "x-ai-tenant")
        tenant = runtime.doorkeeper.tenants.get(steering.tenant or "")
        if tenant is None:
            return invalid("The header x-ai-tenant names no tenant of this gateway.", param="x-ai-tenant")
        return Caller(tenant.name, tenant.priority, is_operator=True)

    def _unknown(self, scope: Scope) -> Failure:
        path = scope["path"]
        if any(path == known for _, known in self._routes):
            return invalid(f"{path} has no method {scope['method']}.", code="method_not_allowed", status=405)
        return invalid("There is no such path here; see /v1/models.", code="unknown_url", status=404)

    async def _complete(self, call: _Call) -> None:
        if self.is_draining:
            await failures.draining(DRAIN_RETRY_S).send(call.send)
            return
        request = await call.request()
        if isinstance(request, Failure):
            await request.send(call.send)
        elif request.stream:
            await _stream(call, request)
        else:
            response = await call.runtime.upstream.send(request)
            answer = headers.returned(response.headers) + headers.about(response)
            await respond(call.send, response.status, answer, response.body)

    async def _models(self, call: _Call) -> None:
        request = Request(endpoint="models", body={}, tenant=call.caller.tenant, priority=0)
        response = await call.runtime.upstream.send(request)
        await respond(call.send, response.status, headers.returned(response.headers), response.body)

    async def _health(self, call: _Call) -> None:
        report = await self._control.health()
        await respond_json(call.send, 200 if report["ok"] else 503, report)

    async def _reload(self, call: _Call) -> None:
        if not call.caller.is_operator:
            message = "Only root and the service's own user, on the Unix socket, may reload."
            await Failure(403, "permission_error", "not_an_operator", message).send(call.send)
            return
        is_done, told = await self._control.reload()
        await respond_json(call.send, 200 if is_done else 422, told)


@dataclass(slots=True)
class _Call:
    """One request on its way through."""

    runtime: Runtime
    path: str
    caller: Caller
    steering: Steering
    receive: Receive
    send: Send
    has_begun: bool = False

    async def fail(self, failure: Failure) -> None:
        """Answer with a failure: as an event where the answer has begun already."""
        if not self.has_begun:
            await failure.send(self.send)
            return
        await self.send({"type": "http.response.body", "body": failure.event(), "more_body": True})
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def request(self) -> Request | Failure:
        """Read and check the body."""
        limit = self.runtime.max_body_bytes
        body = await self._body(limit)
        if body is None:
            message = f"The body is larger than {limit} bytes ([gateway] max_body_mb)."
            return invalid(message, code="request_too_large", status=413)
        parsed = _parse(body)
        return parsed if isinstance(parsed, Failure) else self._checked(parsed)

    def _checked(self, body: dict[str, Any]) -> Request | Failure:
        endpoint, required = _REQUIRED[self.path]
        if required not in body:
            return invalid(f"The field {required} is missing.", param=required)
        if required == "messages" and not _are_messages(body["messages"]):
            return invalid("messages must be a list of objects, at least one.", param="messages")
        if not isinstance(body.setdefault("model", self.runtime.default_model), str):
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

    async def _body(self, limit_bytes: int) -> bytes | None:
        """The whole body; None where it is larger than allowed."""
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


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _parse(body: bytes) -> dict[str, Any] | Failure:
    try:
        parsed = _DECODER.decode(body.decode())
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


async def _stream(call: _Call, request: Request) -> None:
    stream = await call.runtime.upstream.stream(request)
    send = call.send
    answer = headers.returned(stream.headers)
    answer.append((b"cache-control", b"no-cache"))
    answer.append((b"x-ai-model", headers.safe(stream.model)))
    answer.append((b"x-request-id", headers.safe(stream.request_id)))
    try:
        await send({"type": "http.response.start", "status": stream.status, "headers": answer})
        call.has_begun = True
        async for chunk in stream:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        await stream.aclose()
