"""The gateway as a bare ASGI application: who calls, what is asked, and the answer passed on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote

from msgspec import structs

from ai_client.contract.request import Request
from ai_client.errors import AIClientError
from ai_client.gateway.app import failures, headers
from ai_client.gateway.app.api_request import BODILESS, api_request
from ai_client.gateway.app.body_room import BodyRoom
from ai_client.gateway.app.callers import Caller, CallerRefusal, Doorkeeper, HostCheck
from ai_client.gateway.app.client import Client
from ai_client.gateway.app.failures import Failure, not_allowed
from ai_client.gateway.app.headers import Steering
from ai_client.gateway.app.incoming import ENDPOINTS, IncomingCall
from ai_client.gateway.app.own_limits import OwnLimits
from ai_client.gateway.app.pacing import LEAST_URGENT, Pacer
from ai_client.gateway.app.routes import Found, Routes, family_of
from ai_client.gateway.http.asgi import UID_MARK, Receive, Scope, Send, respond, respond_json
from ai_client.gateway.watch.page import NO_STORE, respond_page
from ai_client.platform.loop import RunningLoop

if TYPE_CHECKING:
    from ai_client.gateway.app.forwarder import Forwarder

DRAIN_RETRY_S = 1.0
Reading = Coroutine[Any, Any, Request | Failure]
# The phases of a call end by its deadline themselves, and say more; after this much longer it is ended all the same.
DEADLINE_GRACE_S = 0.25


class Control(Protocol):
    """What the operator's routes and `/health` can ask of the service."""

    async def reload(self) -> tuple[bool, dict[str, Any]]:
        """Read configuration and key anew: whether it worked, and what to tell."""
        ...

    async def health(self) -> dict[str, Any]:
        """All checks, as `ai_client.configure.health.as_json` gives them."""
        ...

    async def status(self) -> dict[str, Any]:
        """What the status page shows."""
        ...

    async def fleet(self) -> dict[str, Any]:
        """What the hosts that share the quota say of themselves: `hosts`, or `error`."""
        ...

    async def forget(self, host: str) -> dict[str, Any]:
        """Takes a host out that is gone for good: whether it is out (`forgotten`), or `error`."""
        ...


class Users:
    """Counts the requests that use one client, so that it is known when the last has ended."""

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


#: What serves one kind of request.
Handler = Callable[["Runtime", "IncomingCall"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Runtime:
    """What one configuration makes of the gateway; a reload puts another in its place, whole."""

    client: Client
    doorkeeper: Doorkeeper
    host_check: HostCheck
    default_model: str
    max_body_bytes: int
    users: Users
    own_limits: OwnLimits
    #: How much longer than its deadline a stream that has begun may take to reach its caller.
    deadline_buffer_s: float = 0.0
    routes: Routes = field(default_factory=Routes)


class GatewayApp:
    """The ASGI application. `runtime` may be replaced at any time: a request keeps the one it began with."""

    def __init__(self, runtime: Runtime, *, control: Control, pacer: Pacer) -> None:
        self.runtime = runtime
        self.is_draining = False
        self._forwarder: Forwarder | None = None
        self._control = control
        self._pacer = pacer
        self._calls: dict[IncomingCall, None] = {}
        self.bodies = BodyRoom()
        self._loop = RunningLoop()
        self._routes: dict[tuple[str, str], Handler] = {
            **{("POST", path): self._complete for path in ENDPOINTS},
            ("GET", "/v1/models"): self._models,
            ("GET", "/health"): self._health,
            ("GET", "/status.json"): self._status,
            ("GET", "/fleet.json"): self._fleet,
            ("POST", "/control/reload"): self._reload,
            ("POST", "/control/forget"): self._forget,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        runtime = self.runtime
        steering = headers.read(scope["headers"])
        if isinstance(steering, Failure):
            await steering.send(send, family_of(scope["path"]))
            return
        caller = _admit(runtime, scope["client"], steering)
        scope = _without_head(scope)
        method, path = scope["method"], scope["path"]
        if (method, path) == ("GET", "/") and (not isinstance(caller, CallerRefusal) or caller.status == 401):
            # The page itself holds nothing; it asks for a token, and gets its data with that.
            await respond_page(send)
            return
        if isinstance(caller, CallerRefusal):
            await failures.from_refusal(caller).send(send, family_of(path))
            return
        handler = self._handler(runtime, method, path)
        if isinstance(handler, Failure):
            await handler.send(send, family_of(path))
            return
        call = self._incoming(scope, receive, send, caller=caller, steering=steering)
        runtime.users.count += 1
        self._calls[call] = None
        try:
            await self._carry(call, partial(handler, runtime, call))
        finally:
            runtime.users.leave()
            del self._calls[call]
            call.ended()

    def _incoming(
        self, scope: Scope, receive: Receive, send: Send, *, caller: Caller, steering: Steering
    ) -> IncomingCall:
        loop = self._loop.get()
        return IncomingCall(
            scope["method"],
            scope["path"],
            query=scope.get("query_string", b""),
            caller=caller,
            steering=steering,
            receive=receive,
            send=send,
            task=asyncio.current_task(loop),
            arrived_s=loop.time(),
            room=self.bodies,
        )

    async def _carry(self, call: IncomingCall, serve: Callable[[], Awaitable[None]]) -> None:
        """To its answer, here or in the process that takes over, or here after all where that one fails."""
        while True:
            try:
                await (serve() if self._forwarder is None else self._forward(call))
            except AIClientError as exc:
                if getattr(exc, "is_handed_over", False) and not call.has_begun and not self.is_draining:
                    await asyncio.sleep(0)
                    continue
                await call.fail(failures.from_error(exc))
            except asyncio.CancelledError:
                if call.is_taken_back:
                    call.is_taken_back = False
                    if (task := asyncio.current_task()) is not None:
                        task.uncancel()
                    continue
                # Either the drain is over, or the caller has left, and reads nothing more.
                await call.fail(failures.draining(DRAIN_RETRY_S))
            return

    def hand_over(self, forwarder: Forwarder) -> None:
        """From now on another process serves: what comes, and what still waits for admission, goes to it."""
        self._forwarder = forwarder
        for call in self._calls:
            call.take_back()

    def take_over_again(self) -> None:
        """The other process does not serve after all."""
        self._forwarder = None

    async def _forward(self, call: IncomingCall) -> None:
        if self._forwarder is None or call.path.startswith("/control/"):
            # Whoever passes a request on is an operator: the right to control must not be had that way.
            await call.fail(failures.draining(DRAIN_RETRY_S))
            return
        # The other process sees to the deadline too, and says more.
        grace_s = 2 * DEADLINE_GRACE_S + self.runtime.deadline_buffer_s
        await self._by_deadline(call, self._pass_on(call, self._forwarder), grace_s=grace_s)

    async def _pass_on(self, call: IncomingCall, forwarder: Forwarder) -> None:
        body = b"" if call.method in BODILESS else await call.body(self.runtime.max_body_bytes)
        if isinstance(body, Failure):
            await call.fail(body)
            return
        headers = call.passed_headers()
        if call.steering.deadline_s is not None:
            headers["x-ai-deadline"] = f"{max(0.001, self._left_s(call, 'queue')):.3f}"
        await forwarder.forward(call.send, method=call.method, path=call.target, headers=headers, body=body)

    def _handler(self, runtime: Runtime, method: str, path: str) -> Handler | Failure:
        """What serves it, or why nothing does."""
        handler = self._routes.get((method, path))
        if handler is not None:
            return handler
        found = self._found(runtime, method, path)
        return found if isinstance(found, Failure) else partial(self._serve, found=found)

    def _found(self, runtime: Runtime, method: str, path: str) -> Found | Failure:
        allow = [each for each, known in self._routes if known == path]
        if allow:
            return not_allowed(method, path, allow=allow)
        return runtime.routes.find(method, path)

    async def _serve(self, runtime: Runtime, call: IncomingCall, *, found: Found) -> None:
        """Every API but the three that most requests are of."""
        limit, model = runtime.max_body_bytes, runtime.default_model
        await self._in_time(runtime, call, api_request(call, found, max_bytes=limit, default_model=model))

    def _complete(self, runtime: Runtime, call: IncomingCall) -> Awaitable[None]:
        limit, model = runtime.max_body_bytes, runtime.default_model
        return self._in_time(runtime, call, call.request(max_bytes=limit, default_model=model))

    def _in_time(self, runtime: Runtime, call: IncomingCall, reading: Reading) -> Awaitable[None]:
        answering = self._answer(runtime, call, reading)
        if call.steering.deadline_s is None:
            return answering
        return self._by_deadline(call, answering, grace_s=DEADLINE_GRACE_S)

    async def _by_deadline(self, call: IncomingCall, work: Awaitable[None], *, grace_s: float) -> None:
        """Within the caller's deadline, whatever it waits for: each phase keeps it, and this sees to it."""
        if call.steering.deadline_s is None:
            await work
            return
        try:
            async with asyncio.timeout_at(call.ends_s(grace_s)) as call.timer:
                await work
        except TimeoutError:
            raise call.deadline_error("upstream") from None

    async def _answer(self, runtime: Runtime, call: IncomingCall, reading: Reading) -> None:
        if self.is_draining:
            reading.close()
            await call.fail(failures.draining(DRAIN_RETRY_S))
            return
        request = await reading
        if isinstance(request, Failure):
            await call.fail(request)
            return
        if self._forwarder is not None:
            await self._forward(call)
            return
        call.is_waiting = True
        if request.priority >= LEAST_URGENT:
            await self._paced(call)
        if call.steering.deadline_s is not None:
            request = structs.replace(request, deadline_s=self._left_s(call, "queue"))
        if request.stream:
            await _stream(runtime, call, request)
            return
        response = await runtime.client.send(request)
        call.is_waiting = False
        answer = headers.returned(response.headers) + headers.about(response) + runtime.own_limits.headers()
        await respond(call.send, response.status, answer, response.body)

    async def _paced(self, call: IncomingCall) -> None:
        """Waits for the turn of a batch request. Raises DeadlineExceeded."""
        if call.steering.deadline_s is None:
            await self._pacer.turn()
            return
        try:
            async with asyncio.timeout(self._left_s(call, "queue")):
                await self._pacer.turn()
        except TimeoutError:
            raise call.deadline_error("queue") from None

    def _left_s(self, call: IncomingCall, phase: str) -> float:
        """What is left of a deadline that counts from the request's arrival. Raises DeadlineExceeded."""
        left_s = call.remaining_s(self._loop.get().time())
        if left_s is None or left_s <= 0:
            raise call.deadline_error(phase)
        return left_s

    @staticmethod
    async def _models(runtime: Runtime, call: IncomingCall) -> None:
        request = Request(endpoint="models", body={}, tenant=call.caller.tenant, priority=0)
        response = await runtime.client.send(request)
        await respond(call.send, response.status, headers.returned(response.headers), response.body)

    async def _health(self, runtime: Runtime, call: IncomingCall) -> None:
        report = await self._control.health()
        await respond_json(call.send, 200 if report["ok"] else 503, report)

    async def _status(self, runtime: Runtime, call: IncomingCall) -> None:
        await respond_json(call.send, 200, await self._control.status(), [NO_STORE])

    async def _fleet(self, runtime: Runtime, call: IncomingCall) -> None:
        if not call.caller.is_operator:
            await _not_an_operator("look at other hosts").send(call.send)
            return
        told = await self._control.fleet()
        await respond_json(call.send, 503 if "error" in told else 200, told, [NO_STORE])

    async def _forget(self, runtime: Runtime, call: IncomingCall) -> None:
        if not call.caller.is_operator:
            await _not_an_operator("forget hosts").send(call.send)
            return
        told = await self._control.forget(unquote(call.query.decode("latin-1").partition("host=")[2]))
        await respond_json(call.send, 503 if "error" in told else 200, told)

    async def _reload(self, runtime: Runtime, call: IncomingCall) -> None:
        if not call.caller.is_operator:
            await _not_an_operator("reload").send(call.send)
            return
        is_done, told = await self._control.reload()
        await respond_json(call.send, 200 if is_done else 422, told)


def _without_head(scope: Scope) -> Scope:
    """HEAD is answered as GET is; the server leaves the body out. Claude Code asks so whether anybody is there."""
    return {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope


def _not_an_operator(what: str) -> Failure:
    message = f"Only root and the service's own user, on the Unix socket, may {what}."
    return Failure(403, "permission_error", "not_an_operator", message)


def _admit(runtime: Runtime, client: tuple[str, int] | None, steering: Steering) -> Caller | CallerRefusal:
    doorkeeper = runtime.doorkeeper
    if client is not None and client[0] == UID_MARK:
        known: Caller | CallerRefusal = doorkeeper.by_uid(client[1])
    else:
        refusal = runtime.host_check.refusal(host=steering.host, origin=steering.origin)
        known = refusal or doorkeeper.by_token(steering.authorization)
    return known if isinstance(known, CallerRefusal) else doorkeeper.acting_for(known, steering.tenant)


async def _stream(runtime: Runtime, call: IncomingCall, request: Request) -> None:
    stream = await runtime.client.stream(request)
    call.is_waiting = False
    send = call.send
    call.sends_events, kind = headers.kind_of_stream(request.endpoint, stream.headers)
    answer = headers.returned({**stream.headers, "content-type": kind})
    answer += runtime.own_limits.headers()
    answer += headers.OF_STREAMS
    answer.append((b"x-ai-model", headers.safe(stream.model)))
    answer.append((b"x-ai-cache", b"hit" if stream.cached else b"miss"))
    answer.append((b"x-request-id", headers.safe(stream.request_id)))
    try:
        await send({"type": "http.response.start", "status": stream.status, "headers": answer})
        call.begun(buffer_s=runtime.deadline_buffer_s)
        async for chunk in stream:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        await stream.aclose()
