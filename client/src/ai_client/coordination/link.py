"""The connection to the engine: one, used by one task, never given up in the middle of an answer and used again."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import unquote, urlsplit

from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from ai_client.coordination import budget_wire
from ai_client.coordination.budget_protocol import BudgetAnswer, BudgetRequest
from ai_client.coordination.budget_wire import BudgetKeys
from ai_client.coordination.endpoint import Endpoint, EngineError, EngineFullError
from ai_client.coordination.protocol import QuotaAnswer, QuotaRequest
from ai_client.coordination.wire import SCRIPT, Keys, arguments, parse

_LEASES = (SCRIPT, hashlib.sha1(SCRIPT.encode()).hexdigest())  # noqa: S324 - how engines name scripts
_BUDGETS = (budget_wire.SCRIPT, budget_wire.DIGEST)
DEFAULT_PORT = 6379
#: So long a listener waits before it asks whether the engine is still there: as often as calls are made.
PING_S = 16.0


@dataclass(frozen=True, slots=True)
class HostReports:
    """What hosts say of themselves and when, by host, and what time it is; in seconds of the engine's clock."""

    texts: dict[str, str]
    said_at_s: dict[str, str]
    now_s: int


def _pairs(reply: object) -> dict[str, str]:
    """A hash as the engine answers it."""
    flat = [each.decode(errors="replace") for each in reply] if isinstance(reply, list) else []
    return dict(zip(flat[::2], flat[1::2], strict=False))


def _connection(endpoint: Endpoint, timeout_s: float) -> Connection:
    """Not yet connected. Each wait on it ends after `timeout_s`."""
    parts = urlsplit(endpoint.url)
    database = parts.path.strip("/")
    make: Callable[..., Connection] = Connection
    if parts.scheme == "rediss":
        ca_path = None if endpoint.ca_path is None else str(endpoint.ca_path)
        if ca_path is not None and not os.access(ca_path, os.R_OK):
            raise RedisError(f"its CA can't be read: {ca_path}, ca_path of [coordination]")
        make = partial(SSLConnection, ssl_ca_certs=ca_path)
    return make(
        host=unquote(parts.hostname or "127.0.0.1"),
        port=parts.port or DEFAULT_PORT,
        db=int(database) if database.isdigit() else 0,
        username=endpoint.user,
        password=endpoint.password,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        # Its user may not say what it is: an entry of ACL LOG and a round trip for nothing.
        driver_info=None,
        protocol=2,
    )


async def _connect(endpoint: Endpoint, timeout_s: float) -> Connection:
    """Connected and let in."""
    connection = _connection(endpoint, timeout_s)
    connected: Awaitable[None] = connection.connect()  # type: ignore[no-untyped-call]
    await connected
    return connection


async def _is_over(connection: Connection) -> bool:
    """Whether the engine closed it since the last answer: it was restarted, or closes what is idle (`timeout`)."""
    try:
        return await connection.can_read()
    except RedisError:
        return True


class EngineLink:
    """Calls to the engine, one after another. After an error the connection is closed, and the next call makes one."""

    def __init__(self, endpoint: Endpoint, *, timeout_s: float) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._connection: Connection | None = None
        self._is_stale = False

    def renew(self, endpoint: Endpoint) -> None:
        """From the next call on this endpoint, on a connection of its own."""
        self._is_stale = self._is_stale or endpoint != self._endpoint
        self._endpoint = endpoint

    async def open(self) -> None:
        """Makes the way there, where there is none: a call then takes one round trip. Raises EngineError."""
        try:
            await self._opened()
        except (RedisError, OSError, TimeoutError) as exc:
            raise await self._failed(exc) from exc

    async def call(
        self, keys: Keys, requests: Sequence[QuotaRequest], *, report: str = ""
    ) -> list[QuotaAnswer]:
        """One call of the script; `report` is what the host says of itself. Raises EngineError."""
        reply = await self._script(keys, arguments(requests, report=report))
        try:
            return parse(reply)
        except ValueError as exc:
            raise await self._failed(exc) from exc

    async def forget(self, keys: Keys, host: str) -> bool:
        """Takes a host out of the books that is gone for good: whether it is out. Raises EngineError."""
        reply = await self._script(keys, [host, "", ""])
        return isinstance(reply, list) and all(each == 1 for each in reply)

    async def host_reports(self, keys: Keys) -> HostReports:
        """What each host last said of itself. Raises EngineError."""
        texts = await self._guarded("HGETALL", keys.reports)
        said = await self._guarded("HGETALL", keys.said)
        time = await self._guarded("TIME")
        return HostReports(_pairs(texts), _pairs(said), int(time[0]) if isinstance(time, list) else 0)

    async def budgets(self, keys: BudgetKeys, request: BudgetRequest) -> BudgetAnswer:
        """One call about shared budgets. Raises EngineError."""
        given = budget_wire.arguments(request)
        reply = await self._run(_BUDGETS, keys.of(request.wishes), given)
        try:
            return budget_wire.parse(reply)
        except ValueError as exc:
            raise await self._failed(exc) from exc

    async def forget_budgets(self, keys: BudgetKeys, host: str) -> None:
        """Takes a host off the roster that is gone for good. Raises EngineError."""
        await self._run(_BUDGETS, keys.of(()), [host, ""])

    async def _script(self, keys: Keys, given: Sequence[str]) -> object:
        return await self._run(_LEASES, keys.all(), given)

    async def _run(
        self, script: tuple[str, str], names: Sequence[str], given: Sequence[str | bytes]
    ) -> object:
        text, digest = script
        tail = [str(len(names)), *names, *given]
        try:
            return await self._command("EVALSHA", digest, *tail)
        except NoScriptError:
            return await self._guarded("EVAL", text, *tail)
        except (RedisError, OSError, TimeoutError) as exc:
            raise await self._failed(exc) from exc

    async def run(
        self, script: tuple[str, str], names: Sequence[str], given: Sequence[str | bytes]
    ) -> object:
        """One call of a script, a text and its digest: its answer. Raises EngineError."""
        return await self._run(script, names, given)

    async def publish(self, channel: str, message: bytes) -> None:
        """Tells all who listen. Raises EngineError."""
        await self._guarded("PUBLISH", channel, message)

    async def close(self) -> None:
        """Ends the connection. Calling it twice is fine."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def _guarded(self, *command: str | bytes) -> object:
        try:
            return await self._command(*command)
        except (RedisError, OSError, TimeoutError) as exc:
            raise await self._failed(exc) from exc

    async def _command(self, *command: str | bytes) -> object:
        connection = await self._opened()
        await connection.send_command(*command)
        return await connection.read_response()

    async def _opened(self) -> Connection:
        if self._is_stale or (self._connection is not None and await _is_over(self._connection)):
            self._is_stale = False
            await self.close()
        if self._connection is None:
            self._connection = await _connect(self._endpoint, self._timeout_s)
        return self._connection

    async def _failed(self, error: Exception) -> EngineError:
        told = _told(self._endpoint, error, connecting=self._connection is None)
        await self.close()
        return told


class Listener:
    """Reads a channel on a connection of its own.

    Where no message comes it asks every `ping_s` whether anybody is there: what lies between drops connections that
    carry nothing, without a word and whatever the kernel's keep-alive does.
    """

    def __init__(self, endpoint: Endpoint, channel: str, *, timeout_s: float, ping_s: float = PING_S) -> None:
        self._endpoint = endpoint
        self._channel = channel
        self._timeout_s = timeout_s
        self._ping_s = ping_s
        self._connection: Connection | None = None
        self._is_doubted = False

    def renew(self, endpoint: Endpoint) -> None:
        """This endpoint, when it connects anew: what listens goes on listening."""
        self._endpoint = endpoint

    def doubt(self) -> None:
        """The engine gave no answer elsewhere: at the next silence it connects anew, as another may serve there now."""
        self._is_doubted = True

    async def next(self) -> bytes:
        """The next message. Raises EngineError; the call after it connects anew."""
        try:
            while True:
                reply = await self._read()
                if isinstance(reply, list) and len(reply) == 3 and reply[0] == b"message":
                    return bytes(reply[2])
        except (RedisError, OSError, TimeoutError) as exc:
            told = _told(self._endpoint, exc, connecting=self._connection is None)
            await self.close()
            raise told from exc
        except asyncio.CancelledError:
            await self.close()
            raise

    async def _read(self) -> object:
        if self._connection is None:
            self._is_doubted = False
            connection = await _connect(self._endpoint, self._timeout_s)
            await connection.send_command("SUBSCRIBE", self._channel)
            self._connection = connection
        reply: object = await self._connection.read_response(timeout=self._ping_s)
        if reply is None and not self._is_doubted:
            await self._connection.send_command("PING")
            reply = await self._connection.read_response()
        elif reply is None:
            await self.close()
        return reply

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"coordination engine {parts.hostname}:{parts.port or DEFAULT_PORT}"


_RIGHTS = "does not let this user run the script; see its ACL in docs/how-to/coordination.md"
_NO_CLUSTER = "is a node of a cluster, whose redirections are not followed; name an engine that is none"
_LATE = "did not answer in time"
_WANTS_USER = (
    "wants a user and a password; "
    "set user (`default` if it has just requirepass) and password_file of [coordination]"
)
# The first that fits: errors derive from each other.
_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (AuthenticationError, "refuses the user or password; see user and password_file of [coordination]"),
    (NoPermissionError, _RIGHTS),
    (OutOfMemoryError, "is out of memory; raise its maxmemory"),
    (ReadOnlyError, "is a replica; name the primary as endpoint of [coordination]"),
    (
        MasterDownError,
        "is a replica that has lost its primary; name the primary as endpoint of [coordination]",
    ),
    (ClusterDownError, _NO_CLUSTER),
    (MovedError, _NO_CLUSTER),
    (ClusterCrossSlotError, _NO_CLUSTER),
    (BusyLoadingError, "is still loading its data"),
    (TimeoutError, _LATE),
    (RedisTimeoutError, _LATE),
)
# By what engines say, where no class of its own tells it. Of commands within a script newer ones say the first, and
# Redis 7.0 the second.
_SAYINGS = (
    ("ACL failure in script", _RIGHTS),
    ("The user executing the script can't", _RIGHTS),
    # Of a call with many arguments an engine says this before it looks who asks.
    ("unauthenticated", _WANTS_USER),
    ("DB index is out of range", "has no database of that number; see the end of endpoint in [coordination]"),
    ("SELECT is not allowed in cluster mode", _NO_CLUSTER),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "has a certificate that is not accepted ({}); "
        "see that its name is that of endpoint, and ca_path of [coordination]",
    ),
    (
        "DENIED",
        "serves only its own machine while its user `default` has no password; set `user default resetpass`",
    ),
)
# The same of what may pass by itself.
_PASSING_SAYINGS = (
    ("max number of clients", "has no room for another connection; raise its maxclients"),
    (
        "BUSY ",
        "is busy with a script that takes too long; find out whose it is, and end it with `SCRIPT KILL`",
    ),
    (
        "NOREPLICAS",
        "takes no writes, as it has too few replicas (min-replicas-to-write); bring a replica back",
    ),
    ("MISCONF", "takes no writes, as it can't save to its disk; see its log, and make room there"),
)
# None of these passes by itself.
_LASTING = (AuthenticationError, NoPermissionError, MovedError, ClusterCrossSlotError)


def _told(endpoint: Endpoint, error: Exception, *, connecting: bool) -> EngineError:
    reason = _reason(endpoint, error)
    if reason == _LATE and connecting and endpoint.url.startswith("rediss:"):
        reason = f"{reason}; does it speak TLS, as rediss:// says?"
    is_lasting = isinstance(error, _LASTING) or any(words in str(error) for words, _ in _SAYINGS)
    kind = EngineFullError if isinstance(error, OutOfMemoryError) else EngineError
    return kind(f"{_place(endpoint.url)}: {reason}", is_lasting=is_lasting)


def _reason(endpoint: Endpoint, error: Exception) -> str:
    text = str(error)[:200]
    if isinstance(error, AuthenticationError) and endpoint.user is None:
        return _WANTS_USER
    for words, reason in (*_SAYINGS, *_PASSING_SAYINGS):
        if words in str(error):
            return reason.format(text.rpartition(": ")[2])
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    if isinstance(error, ResponseError):
        return f"answered with an error: {text}"
    return f"can't be reached ({text or type(error).__name__})"
