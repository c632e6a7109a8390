"""The connection to a real engine: the documented user can do what is needed and no more; errors are told plainly."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import shlex
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic, time

import pytest
import redis
import trustme

from ai_client.coordination.coordinator import Coordinator
from ai_client.coordination.endpoint import Endpoint, EngineError
from ai_client.coordination.lease import Lease, Mode
from ai_client.coordination.link import EngineLink, Listener
from ai_client.coordination.protocol import Kind, QuotaRequest, Terms
from ai_client.coordination.window import LeasedWindow
from tests.ansible.coordination_faults.slow import carry, slow_way
from tests.client.coordination.engine import RealEngine, programs
from tests.client.coordination.fleet import ACCOUNT, KEYS, moment
from tests.client.service_rig import free_port, until

PAGE = Path(__file__).parents[3] / "docs/how-to/coordination.md"
CHANNEL = f"{{ai-client:{ACCOUNT}}}.pauses"


def _documented_user() -> list[str]:
    line = re.search(r"^user fleet .*$", PAGE.read_text(), re.MULTILINE)
    assert line is not None
    return shlex.split(line[0].replace("PASSWORD", "a-password"))


@pytest.fixture(params=programs())
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[RealEngine, int]]:
    port = free_port()
    user = _documented_user()
    started = RealEngine(
        request.param, tmp_path, "--port", str(port), "--bind", "127.0.0.1", "--user", *user[1:]
    ).start()
    yield started, port
    started.stop()


def _endpoint(port: int) -> Endpoint:
    return Endpoint(f"redis://127.0.0.1:{port}", "fleet", "a-password")


def _request() -> QuotaRequest:
    lease = Lease("h", "i", share=5, floor=1, now=moment(), remembers_share=True, terms=Terms())
    return lease.begin(moment(), used=0, demand=0)


async def test_the_documented_user_can_call_publish_and_listen(engine: tuple[RealEngine, int]) -> None:
    _, port = engine
    link = EngineLink(_endpoint(port), timeout_s=3)
    (answer,) = await link.call(KEYS, [_request()])
    assert answer.kind is Kind.HELLO
    listener = Listener(_endpoint(port), CHANNEL, timeout_s=3)
    heard = asyncio.create_task(listener.next())
    while not heard.done():
        await link.publish(CHANNEL, b"pause")
        await asyncio.sleep(0.02)
    assert heard.result() == b"pause"
    await link.close()
    await listener.close()


@pytest.mark.parametrize("program", programs())
async def test_an_engine_with_the_documented_lines_lets_hosts_in_and_nobody_else(
    tmp_path: Path, program: str
) -> None:
    """But for its address and certificate, which are each engine's own."""
    port = free_port()
    block = re.search(r"^```text\n(bind .*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert block is not None
    own = ("bind ", "port ", "tls-")
    lines = [
        line for line in block[1].replace("PASSWORD", "a-password").splitlines() if not line.startswith(own)
    ]
    options = [word for line in lines for word in shlex.split(f"--{line}")]
    engine = RealEngine(program, tmp_path, "--port", str(port), "--bind", "127.0.0.1", *options).start()
    link, anybody = (
        EngineLink(each, timeout_s=3) for each in (_endpoint(port), Endpoint(_endpoint(port).url))
    )
    try:
        (answer,) = await link.call(KEYS, [_request()])
        assert answer.kind is Kind.HELLO
        with pytest.raises(EngineError, match="wants a user and a password"):
            await anybody.call(KEYS, [_request()])
    finally:
        await link.close()
        await anybody.close()
        engine.stop()


async def test_nothing_is_tried_that_the_documented_user_may_not_do(engine: tuple[RealEngine, int]) -> None:
    """Each connection of each host would fill the engine's log of refusals."""
    server, port = engine
    link = EngineLink(_endpoint(port), timeout_s=3)
    await link.call(KEYS, [_request()])
    await link.close()
    with redis.Redis(unix_socket_path=str(server.socket)) as operator:
        assert operator.acl_log() == []


class _Nobody:
    """Admission without callers."""

    def queued(self) -> int:
        return 0

    def window_changed(self) -> None:
        pass

    def hold(self, model: str, key_fingerprint: str, pause_s: float) -> None:
        pass


async def test_the_way_to_a_slow_engine_takes_nothing_of_the_time_for_an_answer(
    engine: tuple[RealEngine, int],
) -> None:
    """Connecting and being let in take as long as each answer; only together with it they would be too long."""
    _, port = engine
    link = EngineLink(_endpoint(port), timeout_s=3)
    await link.call(KEYS, [_request()])
    await link.close()
    terms = Terms(answer_ms=700)
    lease = Lease("slow", "s", share=5, floor=1, now=moment(), remembers_share=True, terms=terms)
    window = LeasedWindow(lease, None, boot=monotonic, wall=time)
    slow_port = free_port()
    async with slow_way("127.0.0.1", slow_port, target_port=port, delay_s=0.5):
        coordinator = Coordinator(
            _endpoint(slow_port),
            account=ACCOUNT,
            window=window,
            admission=_Nobody(),
            most=5,
            terms=terms,
            random_source=random.Random(1),  # noqa: S311 - jitter
        )
        task = asyncio.create_task(coordinator.run())
        async with asyncio.timeout(20):
            while coordinator.status().mode is not Mode.LEASED or lease.answer is None:
                assert coordinator.status().trouble is None
                await asyncio.sleep(0.05)
        assert coordinator.status().failures == 0
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class _Longest(random.Random):
    """Every wait is as long as can be."""

    def uniform(self, _: float, b: float) -> float:
        return b


async def test_a_host_whose_lease_ended_has_its_floor_at_once_where_the_engine_is_gone(
    engine: tuple[RealEngine, int], caplog: pytest.LogCaptureFixture
) -> None:
    """It asks once more before it sends anything, and does not put that off as it does other calls.

    That the limit has another source is a warning; where it began with, is none.
    """
    server, port = engine
    terms = Terms(call_ms=500, answer_ms=700, unripe_ms=300)
    lease = Lease("h", "i", share=200, floor=4, now=moment(), remembers_share=True, terms=terms)
    coordinator = Coordinator(
        _endpoint(port),
        account=ACCOUNT,
        window=LeasedWindow(lease, None, boot=monotonic, wall=time),
        admission=_Nobody(),
        most=5,
        terms=terms,
        random_source=_Longest(),
    )
    task = asyncio.create_task(coordinator.run())
    seen: list[tuple[float, Mode]] = []
    async with asyncio.timeout(20):
        await until(
            lambda: coordinator.status().mode is Mode.LEASED and lease.answer is not None, what="a lease"
        )
        assert not any(
            each.levelno >= logging.WARNING and each.message == "quota_mode" for each in caplog.records
        )
        server.stop()
        while not seen or seen[-1][1] is not Mode.FLOOR:
            seen.append((monotonic(), coordinator.status().mode))
            await asyncio.sleep(0.01)
    expired = [at_s for at_s, mode in seen if mode is Mode.EXPIRED]
    assert not expired or expired[-1] - expired[0] < 1.0
    assert coordinator.status().limit == 4
    await until(
        lambda: any(
            each.levelno == logging.WARNING and each.message == "quota_mode" for each in caplog.records
        ),
        what="a warning",
    )
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_hosts_of_one_name_are_told_so(engine: tuple[RealEngine, int]) -> None:
    """As clones of one machine have it: each takes the other's place in the books, and both use the same slots."""
    _, port = engine
    terms = Terms(call_ms=500, answer_ms=700, unripe_ms=300)

    def coordinator(instance: str) -> Coordinator:
        lease = Lease("vm", instance, share=5, floor=1, now=moment(), remembers_share=True, terms=terms)
        return Coordinator(
            _endpoint(port),
            account=ACCOUNT,
            window=LeasedWindow(lease, None, boot=monotonic, wall=time),
            admission=_Nobody(),
            most=5,
            terms=terms,
            random_source=random.Random(1),  # noqa: S311 - jitter
        )

    first, second = coordinator("i"), coordinator("j")
    tasks = [asyncio.create_task(first.run())]
    await until(lambda: first.status().calls > 4, what="calls of one alone")
    assert first.status().trouble is None
    tasks.append(asyncio.create_task(second.run()))
    for each in (first, second):
        await until(
            lambda each=each: "uses this host's name" in (each.status().trouble or ""),  # type: ignore[misc]
            what="word of the other",
        )
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_the_documented_user_can_do_no_more(engine: tuple[RealEngine, int]) -> None:
    _, port = engine
    with redis.Redis(port=port, username="fleet", password="a-password") as connection:
        for command in (
            ["FLUSHALL"],
            ["CONFIG", "GET", "*"],
            ["KEYS", "*"],
            ["HGET", "another", "x"],
            ["SHUTDOWN"],
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                connection.execute_command(*command)


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        ("password", "refuses the user or password"),
        ("memory", "is out of memory"),
        ("gone", "can't be reached"),
    ],
)
async def test_what_is_wrong_is_told_without_the_password(
    engine: tuple[RealEngine, int], trouble: str, told: str
) -> None:
    server, port = engine
    endpoint = replace(_endpoint(port), password="wrong-one") if trouble == "password" else _endpoint(port)
    link = EngineLink(endpoint, timeout_s=3)
    with redis.Redis(unix_socket_path=str(server.socket)) as operator:
        if trouble == "memory":
            # The first call of all begins the books, and what an engine has begun to write it finishes.
            await link.call(KEYS, [_request()])
            operator.config_set("maxmemory", 1)
    if trouble == "gone":
        server.stop()
    with pytest.raises(EngineError, match=told) as caught:
        await link.call(KEYS, [_request()])
    assert "wrong-one" not in str(caught.value)
    await link.close()


@pytest.mark.parametrize(
    ("options", "changes", "told"),
    [
        (("--requirepass", "x"), {"user": None}, "wants a user and a password; set user (`default`"),
        ((), {"url": "redis://127.0.0.1:PORT/99"}, "has no database of that number"),
        (("--cluster-enabled", "yes", "--cluster-port", "PORT"), {}, "is a node of a cluster"),
        (
            ("--replicaof", "127.0.0.1 1", "--replica-serve-stale-data", "no"),
            {},
            "is a replica that has lost its primary",
        ),
        ((), {"url": "rediss://127.0.0.1:PORT"}, "did not answer in time; does it speak TLS"),
        (
            (),
            {"url": "rediss://127.0.0.1:PORT", "ca_path": Path("/no/such/ca")},
            "its CA can't be read: /no/such/ca",
        ),
    ],
)
async def test_a_setting_that_does_not_fit_the_engine_is_named(
    tmp_path: Path, options: tuple[str, ...], changes: dict[str, object], told: str
) -> None:
    """As those see it who set it up for the first time."""
    port = free_port()
    words = ["--port", str(port), "--bind", "127.0.0.1", "--user", *_documented_user()[1:]]
    own = [str(free_port()) if each == "PORT" else each for each in options]
    engine = RealEngine(programs()[0], tmp_path, *words, *own).start()
    url = str(changes.get("url", "redis://127.0.0.1:PORT")).replace("PORT", str(port))
    endpoint = replace(_endpoint(port), **{**changes, "url": url})  # type: ignore[arg-type]  # by their names
    link = EngineLink(endpoint, timeout_s=1)
    try:
        with pytest.raises(EngineError, match=re.escape(told)):
            await link.call(KEYS, [_request()])
    finally:
        await link.close()
        engine.stop()


@pytest.mark.parametrize(
    ("says", "told", "is_lasting"),
    [
        ("LOADING Valkey is loading the dataset in memory", "is still loading its data", False),
        ("READONLY You can't write against a read only replica.", "is a replica; name the primary", False),
        ("MASTERDOWN Link with MASTER is down", "is a replica that has lost its primary", False),
        ("NOREPLICAS Not enough good replicas to write.", "has too few replicas", False),
        ("MISCONF Errors writing to the AOF file: No space left", "it can't save to its disk", False),
        ("OOM command not allowed when used memory > 'maxmemory'.", "is out of memory", False),
        ("BUSY Valkey is busy running a script.", "end it with `SCRIPT KILL`", False),
        ("ERR max number of clients reached", "raise its maxclients", False),
        ("MOVED 3999 127.0.0.1:6381", "is a node of a cluster", True),
        ("CROSSSLOT Keys in request don't hash to the same slot", "is a node of a cluster", True),
        (
            "NOPERM User fleet has no permissions to run the 'evalsha' command",
            "does not let this user run",
            True,
        ),
        (
            "WRONGPASS invalid username-password pair or user is disabled.",
            "refuses the user or password",
            True,
        ),
        ("DENIED Running in protected mode because", "set `user default resetpass`", True),
    ],
)
async def test_what_engines_refuse_with_is_told_by_its_remedy(
    says: str, told: str, *, is_lasting: bool
) -> None:
    """And whether it may pass by itself: what lasts, commands don't wait for."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while asked := await reader.read(65536):
            is_call = b"EVAL" in asked
            writer.write(f"-{says}\r\n".encode() if is_call else b"+OK\r\n" * asked.count(b"*"))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        link = EngineLink(_endpoint(server.sockets[0].getsockname()[1]), timeout_s=3)
        with pytest.raises(EngineError, match=re.escape(told)) as caught:
            await link.call(KEYS, [_request()])
        await link.close()
    assert caught.value.is_lasting is is_lasting


@pytest.mark.parametrize("names", ["127.0.0.1", "another.example"])
async def test_an_engine_is_known_by_the_name_in_its_certificate(tmp_path: Path, names: str) -> None:
    """Of an authority that is trusted, too: a certificate of another name is anybody's."""
    authority, port = trustme.CA(), free_port()
    certificate = authority.issue_cert(names)
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    files = (
        "--tls-cert-file",
        str(tmp_path / "certificate.pem"),
        "--tls-key-file",
        str(tmp_path / "key.pem"),
    )
    words = ("--tls-port", str(port), "--bind", "127.0.0.1", "--tls-auth-clients", "no", *files)
    engine = RealEngine(programs()[1], tmp_path, *words, "--user", *_documented_user()[1:]).start()
    url = f"rediss://127.0.0.1:{port}"
    link = EngineLink(replace(_endpoint(port), url=url, ca_path=tmp_path / "ca.pem"), timeout_s=3)
    try:
        if names == "127.0.0.1":
            (answer,) = await link.call(KEYS, [_request()])
            assert answer.kind is Kind.HELLO
        else:
            with pytest.raises(EngineError, match="is that of endpoint"):
                await link.call(KEYS, [_request()])
    finally:
        await link.close()
        engine.stop()


async def test_scripts_that_the_engine_forgot_are_sent_again(engine: tuple[RealEngine, int]) -> None:
    """By SCRIPT FLUSH, or because another engine took its place."""
    server, port = engine
    link = EngineLink(_endpoint(port), timeout_s=3)
    (first,) = await link.call(KEYS, [_request()])
    with redis.Redis(unix_socket_path=str(server.socket)) as operator:
        operator.script_flush()
    (later,) = await link.call(KEYS, [_request()])
    assert later.order > first.order
    await link.close()


async def test_an_engine_without_room_for_connections_is_told(engine: tuple[RealEngine, int]) -> None:
    """It answers the first command of a connection with it, whichever that is."""
    server, port = engine
    with redis.Redis(unix_socket_path=str(server.socket)) as operator:
        operator.config_set("maxclients", 1)
        link = EngineLink(_endpoint(port), timeout_s=3)
        with pytest.raises(EngineError, match="raise its maxclients"):
            await link.call(KEYS, [_request()])
    await link.close()


async def test_a_connection_that_the_engine_closed_meanwhile_is_no_failure(
    engine: tuple[RealEngine, int],
) -> None:
    """One that was restarted, or that closes what is idle for a while: the next call makes another one."""
    server, port = engine
    link = EngineLink(_endpoint(port), timeout_s=3)
    (first,) = await link.call(KEYS, [_request()])
    with redis.Redis(unix_socket_path=str(server.socket)) as operator:
        operator.execute_command("CLIENT", "KILL", "USER", "fleet")
    reader = link._connection._reader if link._connection else None
    assert reader is not None
    await until(reader.at_eof, what="the end of the connection")
    (later,) = await link.call(KEYS, [_request()])
    assert later.order > first.order
    await link.close()


@asynccontextmanager
async def _deaf_way(port: int, target_port: int) -> AsyncIterator[asyncio.Event]:
    """A way on which nothing goes any more once the event is set, on connections of before: nobody is told."""
    is_cut = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_engine, to_engine = await asyncio.open_connection("127.0.0.1", target_port)
        is_old = not is_cut.is_set()

        def unless_cut(write: Callable[[bytes], object]) -> Callable[[bytes], object]:
            return lambda piece: None if is_old and is_cut.is_set() else write(piece)

        await asyncio.gather(
            carry(reader, unless_cut(to_engine.write)), carry(from_engine, unless_cut(writer.write))
        )

    async with await asyncio.start_server(serve, "127.0.0.1", port):
        yield is_cut


async def _heard_by(listener: Listener, link: EngineLink) -> bytes:
    heard = asyncio.create_task(listener.next())
    while not heard.done():
        await link.publish(CHANNEL, b"pause")
        await asyncio.sleep(0.02)
    return heard.result()


async def test_a_listener_whose_connection_was_dropped_without_a_word_notices(
    engine: tuple[RealEngine, int],
) -> None:
    """As a NAT or a balancer drops what is idle: it asks whether anybody is there, and connects anew."""
    _, port = engine
    way = free_port()
    link = EngineLink(_endpoint(port), timeout_s=3)
    async with _deaf_way(way, port) as is_cut, asyncio.timeout(20):
        listener = Listener(_endpoint(way), CHANNEL, timeout_s=0.3, ping_s=0.2)
        assert await _heard_by(listener, link) == b"pause"
        is_cut.set()
        with pytest.raises(EngineError, match="did not answer in time"):
            await listener.next()
        assert await _heard_by(listener, link) == b"pause"
        await listener.close()
    await link.close()


async def test_a_listener_goes_on_through_silence_and_connects_anew_where_calls_fail(
    engine: tuple[RealEngine, int],
) -> None:
    """A primary that was demoted answers, too; what listens there hears nothing of hosts that go elsewhere."""
    server, port = engine
    listener = Listener(_endpoint(port), CHANNEL, timeout_s=3, ping_s=0.1)
    heard = asyncio.create_task(listener.next())
    with redis.Redis(unix_socket_path=str(server.socket)) as operator:

        def listening() -> str:
            told = str(operator.execute_command("CLIENT", "LIST", "TYPE", "pubsub"))
            return " ".join(re.findall(r"\bid=\d+", told))

        await until(lambda: bool(listening()), what="a listener")
        first = listening()
        pings = operator.info("commandstats").get("cmdstat_ping", {"calls": 0})["calls"]
        await until(
            lambda: operator.info("commandstats").get("cmdstat_ping", {"calls": 0})["calls"] > pings + 3,
            what="pings",
        )
        assert listening() == first
        listener.doubt()
        await until(lambda: listening() not in ("", first), what="another connection")
        operator.publish(CHANNEL, b"pause")
    async with asyncio.timeout(10):
        assert await heard == b"pause"
    await listener.close()


async def test_an_engine_that_hangs_is_given_up_and_its_answer_is_never_taken_for_another(
    engine: tuple[RealEngine, int],
) -> None:
    server, port = engine
    link = EngineLink(_endpoint(port), timeout_s=0.3)
    (first,) = await link.call(KEYS, [_request()])
    with redis.Redis(unix_socket_path=str(server.socket)) as operator:
        operator.execute_command("CLIENT", "PAUSE", "1000", "ALL")
    with pytest.raises(EngineError, match="in time"):
        await link.call(KEYS, [_request()])
    async with asyncio.timeout(10):
        while True:
            try:
                (later,) = await link.call(KEYS, [_request()])
                break
            except EngineError:
                continue
    assert later.order > first.order
    await link.close()
