"""The gateway as a bare ASGI application: who calls, what is asked, and the answer passed on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ai_client.errors import AIClientError
from ai_client.gateway import failures, headers
from ai_client.gateway.asgi import Receive, Scope, Send, respond, respond_json
from ai_client.gateway.call import CURRENT, Call
from ai_client.gateway.callers import UID_MARK, Caller, Doorkeeper, HostCheck, Refusal
from ai_client.gateway.failures import Failure, invalid
from ai_client.gateway.headers import Steering
from ai_client.gateway.own_limits import OwnLimits
from ai_client.gateway.pacing import LEAST_URGENT, Pacer
from ai_client.gateway.page import NO_STORE, respond_page
from ai_client.gateway.upstream import Upstream
from ai_client.request import Request
from ai_client.running_loop import RunningLoop

if TYPE_CHECKING:
    from ai_client.gateway.forwarder import Forwarder

DRAIN_RETRY_S = 1.0


class Control(Protocol):
    """What the operator's routes and `/health` can ask of the service."""

    async def reload(self) -> tuple[bool, dict[str, Any]]:
        """Read configuration and key anew: whether it worked, and what to tell."""
        ...

    async def health(self) -> dict[str, Any]:
        """All checks, as `ai_client.health.as_json` gives them."""
        ...

    async def status(self) -> dict[str, Any]:
        """What the status page shows."""
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
    own_limits: OwnLimits


class GatewayApp:
    """The ASGI application. `runtime` may be replaced at any time: a request keeps the one it began with."""

    def __init__(self, runtime: Runtime, *, control: Control, pacer: Pacer) -> None:
        self.runtime = runtime
        self.is_draining = False
        self._forwarder: Forwarder | None = None
        self._control = control
        self._pacer = pacer
        self._calls: set[Call] = set()
        self._loop = RunningLoop()
        self._routes: dict[tuple[str, str], Callable[[Runtime, Call], Awaitable[None]]] = {
            ("POST", "/v1/chat/completions"): self._complete,
            ("POST", "/v1/completions"): self._complete,
            ("POST", "/v1/embeddings"): self._complete,
            ("GET", "/v1/models"): self._models,
            ("GET", "/health"): self._health,
            ("GET", "/status.json"): self._status,
            ("POST", "/control/reload"): self._reload,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        runtime = self.runtime
        steering = headers.read(scope["headers"])
        if isinstance(steering, Failure):
            await steering.send(send)
            return
        caller = _admit(runtime, scope["client"], steering)
        method, path = scope["method"], scope["path"]
        if isinstance(caller, Refusal):
            # The page itself holds nothing; it asks for a token, and gets its data with that.
            if (method, path, caller.status) == ("GET", "/", 401):
                await respond_page(send)
            else:
                await failures.from_refusal(caller).send(send)
            return
        route = self._routes.get((method, path))
        if (method, path) == ("GET", "/"):
            await respond_page(send)
            return
        if route is None:
            await self._unknown(method, path).send(send)
            return
        task = asyncio.current_task(self._loop.get())
        call = Call(method, path, caller=caller, steering=steering, receive=receive, send=send, task=task)
        runtime.users.count += 1
        self._calls.add(call)
        try:
            await (route(runtime, call) if self._forwarder is None else self._forward(call))
        except AIClientError as exc:
            await call.fail(failures.from_error(exc))
        except asyncio.CancelledError:
            await self._cancelled(call)
        finally:
            runtime.users.leave()
            self._calls.discard(call)
            call.ended()

    async def _cancelled(self, call: Call) -> None:
        """It was taken back for another process, or the drain is over, or the caller has left."""
        if call.is_taken_back:
            await self._forward(call)
        elif self.is_draining:
            await call.fail(failures.draining(DRAIN_RETRY_S))

    def hand_over(self, forwarder: Forwarder) -> None:
        """From now on another process serves: what comes, and what still waits for admission, goes to it."""
        self._forwarder = forwarder
        for call in self._calls:
            call.take_back()

    def take_over_again(self) -> None:
        """The other process does not serve after all."""
        self._forwarder = None

    async def _forward(self, call: Call) -> None:
        if self._forwarder is None or call.path.startswith("/control/"):
            # Whoever passes a request on is an operator: the right to control must not be had that way.
            await call.fail(failures.draining(DRAIN_RETRY_S))
            return
        body = await call.body(self.runtime.max_body_bytes) if call.method == "POST" else b""
        if isinstance(body, Failure):
            await body.send(call.send)
            return
        await self._forwarder.forward(
            call.send, method=call.method, path=call.path, headers=call.passed_headers(), body=body
        )

    def _unknown(self, method: str, path: str) -> Failure:
        if any(path == known for _, known in self._routes):
            return invalid(f"{path} has no method {method}.", code="method_not_allowed", status=405)
        return invalid("There is no such path here; see /v1/models.", code="unknown_url", status=404)

    async def _complete(self, runtime: Runtime, call: Call) -> None:
        if self.is_draining:
            await failures.draining(DRAIN_RETRY_S).send(call.send)
            return
        request = await call.request(max_bytes=runtime.max_body_bytes, default_model=runtime.default_model)
        if isinstance(request, Failure):
            await request.send(call.send)
            return
        if self._forwarder is not None:
            await self._forward(call)
            return
        CURRENT.set(call)
        call.is_waiting = True
        if request.priority >= LEAST_URGENT:
            await self._pacer.turn()
        if request.stream:
            await _stream(runtime, call, request)
            return
        response = await runtime.upstream.send(request)
        call.is_waiting = False
        answer = headers.returned(response.headers) + headers.about(response) + runtime.own_limits.headers()
        await respond(call.send, response.status, answer, response.body)

    @staticmethod
    async def _models(runtime: Runtime, call: Call) -> None:
        request = Request(endpoint="models", body={}, tenant=call.caller.tenant, priority=0)
        response = await runtime.upstream.send(request)
        await respond(call.send, response.status, headers.returned(response.headers), response.body)

    async def _health(self, runtime: Runtime, call: Call) -> None:
        report = await self._control.health()
        await respond_json(call.send, 200 if report["ok"] else 503, report)

    async def _status(self, runtime: Runtime, call: Call) -> None:
        await respond_json(call.send, 200, await self._control.status(), [NO_STORE])

    async def _reload(self, runtime: Runtime, call: Call) -> None:
        if not call.caller.is_operator:
            message = "Only root and the service's own user, on the Unix socket, may reload."
            await Failure(403, "permission_error", "not_an_operator", message).send(call.send)
            return
        is_done, told = await self._control.reload()
        await respond_json(call.send, 200 if is_done else 422, told)


def _admit(runtime: Runtime, client: tuple[str, int] | None, steering: Steering) -> Caller | Refusal:
    doorkeeper = runtime.doorkeeper
    if client is not None and client[0] == UID_MARK:
        known: Caller | Refusal = doorkeeper.by_uid(client[1])
    else:
        refusal = runtime.host_check.refusal(host=steering.host, origin=steering.origin)
        known = refusal or doorkeeper.by_token(steering.authorization)
    return known if isinstance(known, Refusal) else doorkeeper.acting_for(known, steering.tenant)


async def _stream(runtime: Runtime, call: Call, request: Request) -> None:
    stream = await runtime.upstream.stream(request)
    call.is_waiting = False
    send = call.send
    answer = headers.returned(stream.headers)
    answer += runtime.own_limits.headers()
    answer.append((b"cache-control", b"no-cache"))
    answer.append((b"x-ai-model", headers.safe(stream.model)))
    answer.append((b"x-ai-cache", b"hit" if stream.cached else b"miss"))
    answer.append((b"x-request-id", headers.safe(stream.request_id)))
    try:
        await send({"type": "http.response.start", "status": stream.status, "headers": answer})
        call.has_begun = True
        async for chunk in stream:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        await stream.aclose()
