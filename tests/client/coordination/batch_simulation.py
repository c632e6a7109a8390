"""Hosts that share a batch, who submits and who fetches it, their engine and all that can befall them, in one seed.

The host's side is the real one (`ai_client.batch.shared`), on files in memory and a loop whose time is simulated; the
engine is the model that `batches.lua` is held to.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ai_client.batch.caller import Answer, GatewayAbsentError
from ai_client.batch.lines import RequestLine
from ai_client.batch.output import OutputError
from ai_client.batch.shared.engine import BatchError
from ai_client.batch.shared.fetching import Fetching, FetchPlan
from ai_client.batch.shared.sealing import HostKey, SealError
from ai_client.batch.shared.submission import Submission, SubmissionPlan
from ai_client.batch.shared.worker import SharedWorker, SharedWorkerPlan
from ai_client.coordination.batch_books import BatchBooks
from ai_client.coordination.batch_protocol import BatchTerms, Chunk, Kept
from ai_client.coordination.endpoint import EngineError
from tests.client.coordination.virtual_loop import SimulatedProcess, VirtualLoop

ANSWER_S = 3.0
FAULTY_S = 900.0
LIMIT_S = 20_000.0
TERMS = BatchTerms(room_bytes=4_000)
_TIMED = ("add", "take", "begin", "hold", "release", "flight")
_NAME = "batch"
_FOLDER = Path("/dev/shm")


@dataclass
class SimulatedEngine:
    """One endpoint; behind it one process or another, with what it remembers."""

    books: BatchBooks = field(default_factory=BatchBooks)
    is_up: bool = True
    clock_ahead_s: float = 0.0
    dumps: deque[tuple[float, BatchBooks]] = field(default_factory=lambda: deque(maxlen=40))
    #: Whether its memory or clock was ever less than true: then a line may be begun by two hosts.
    is_sure: bool = True


class World:
    """See the module. `check` raises AssertionError with the seed where a promise was broken."""

    def __init__(
        self, seed: int, *, books: type[BatchBooks] = BatchBooks, faulty_s: float = FAULTY_S
    ) -> None:
        self.seed = seed
        self.random = random.Random(seed)  # noqa: S311 - a simulation's
        self.engine = SimulatedEngine(books())
        self.faulty_s = faulty_s
        self.log: list[str] = []
        self.broken: list[str] = []
        self.calls = 0
        rate = self.random
        self.loss = rate.choice([0.0, 0.0, 0.02, 0.2])
        self.late = rate.choice([0.0, 0.0, 0.05])
        self.slow_s = rate.choice([0.5, 5.0, 40.0])
        self.trouble_s = rate.choice([5.0, 20.0, 60.0])
        self.failovers = rate.random() < 0.4
        self.keys = [HostKey.of("hs_test_key_0")]
        self.sent: Counter[int] = Counter()
        self.kept: Counter[int] = Counter()
        self.kept_at_s: dict[int, float] = {}
        self.begun_at_s: dict[tuple[str, str, int], float] = {}
        self.wanted: list[int] = []
        self.workers: dict[str, SimulatedProcess] = {}
        self.commands: dict[str, SimulatedProcess] = {}
        self.is_fetched = False
        self.processes = 0

    # running

    def run(self) -> World:
        loop = VirtualLoop()
        folder = _FOLDER if _FOLDER.is_dir() else None
        with tempfile.TemporaryDirectory(dir=folder) as place:
            self.folder = Path(place)
            try:
                loop.run_until_complete(self._run())
            finally:
                loop.close()
        return self

    async def _run(self) -> None:
        self._write_input()
        for number in range(self.random.randint(1, 4)):
            self._begin_worker(f"h{number}")
        self._begin_submission()
        self._begin_fetch()
        others = [asyncio.create_task(each()) for each in (self._befall, self._dump)]
        loop = asyncio.get_running_loop()
        while not self.is_fetched and loop.time() < LIMIT_S and not self.broken:  # noqa: ASYNC110 - simulated time
            await asyncio.sleep(1)
        self._look_at_output()
        for process in (*self.workers.values(), *self.commands.values()):
            process.kill()
        everything = asyncio.all_tasks() - {asyncio.current_task()}
        for task in (*others, *everything):
            task.cancel()
        await asyncio.gather(*everything, return_exceptions=True)

    def say(self, text: str) -> None:
        self.log.append(f"{asyncio.get_running_loop().time():9.3f} {text}")

    def _write_input(self) -> None:
        rate, lines = self.random, []
        for number in range(1, rate.choice([1, 40, 150, 400]) + 1):
            kind = rate.random()
            if kind < 0.05:
                lines.append("")
                continue
            self.wanted.append(number)
            body = {"model": "m", "messages": [{"role": "user", "content": "x" * rate.randint(1, 60)}]}
            line = {"custom_id": f"id{number}", "url": "/v1/chat/completions", "body": body}
            lines.append("no JSON" if kind < 0.1 else json.dumps(line))
        (self.folder / "in.jsonl").write_text("\n".join(lines) + rate.choice(["", "\n", "\n\n"]))

    # processes

    def _process(self, name: str) -> SimulatedProcess:
        self.processes += 1
        return SimulatedProcess(f"{name}/{self.processes}")

    def _begin_worker(self, host: str) -> None:
        process = self.workers[host] = self._process(host)
        plan = SharedWorkerPlan(
            consumer=process.name,
            keys=lambda: tuple(self.keys),
            at_once=self.random.choice([1, 1, 4, 20]),
            max_line_bytes=10_000,
            terms=TERMS,
        )
        loop = asyncio.get_running_loop()
        worker = SharedWorker(
            Link(self, process), Sends(self, process), plan, clock=loop.time, wait=process.wait
        )
        process.start(worker.run())

    def _begin_submission(self) -> None:
        process = self.commands["submit"] = self._process("submit")
        plan = SubmissionPlan(
            self.folder / "in.jsonl",
            _NAME,
            "h",
            tuple(self.keys),
            max_line_bytes=10_000,
            now_s=1,
            terms=TERMS,
        )
        self._again(
            process, Submission(plan, Link(self, process), wait=process.wait).run, self._begin_submission
        )

    def _begin_fetch(self) -> None:
        process = self.commands["fetch"] = self._process("fetch")
        plan = FetchPlan(
            _NAME,
            self.folder / "out.jsonl",
            self.folder / "out.errors",
            "h",
            tuple(self.keys),
            waits=True,
            takes_over=False,
        )
        fetching = Fetching(plan, Link(self, process), wait=process.wait)

        async def fetch() -> None:
            await fetching.run()
            self.is_fetched = fetching.is_complete

        self._again(process, fetch, self._begin_fetch)

    def _again(self, process: SimulatedProcess, work: Callable[[], Any], begin: Callable[[], None]) -> None:
        """As a user does: the same command until all is fetched, also where it was killed."""

        async def run() -> None:
            try:
                await work()
            except (EngineError, BatchError, OutputError, SealError) as exc:
                self.say(f"{process.name}: {exc}")

        task = process.start(run())
        loop = asyncio.get_running_loop()

        def ended(_: object) -> None:
            if not self.is_fetched:
                loop.call_later(self.random.uniform(1, 60), lambda: self.is_fetched or begin())

        task.add_done_callback(ended)

    # what befalls them

    async def _befall(self) -> None:
        loop, rate = asyncio.get_running_loop(), self.random
        faults = [self._kill_worker] * 4 + [self._kill_command] * 3 + [self._pause] * 4
        faults += [self._outage, self._rotate]
        if self.failovers:
            faults += [self._fail_over, self._jump, self._restore]
        while loop.time() < self.faulty_s:
            await asyncio.sleep(rate.expovariate(1 / self.trouble_s))
            if loop.time() < self.faulty_s:
                await rate.choice(faults)()
        self.loss = self.late = 0.0

    async def _kill_worker(self) -> None:
        host = self.random.choice(sorted(self.workers))
        self.say(f"kill {self.workers[host].name}")
        self.workers[host].kill()
        asyncio.get_running_loop().call_later(self.random.uniform(0, 90), self._begin_worker, host)

    async def _kill_command(self) -> None:
        name = self.random.choice(sorted(self.commands))
        self.say(f"kill {name}")
        self.commands[name].kill()

    async def _pause(self) -> None:
        process = self.random.choice([*self.workers.values()] * 3 + [*self.commands.values()])
        for_s = self.random.choice([1, 29, 31, 61, 65, 90, 150])
        self.say(f"pause {process.name} for {for_s} s")
        process.goes_on_at_s = asyncio.get_running_loop().time() + for_s

    async def _outage(self) -> None:
        self.engine.is_up = False
        self.say("the engine is away")
        await asyncio.sleep(self.random.choice([1, 20, 70]))
        self.engine.is_up = True

    async def _rotate(self) -> None:
        """As `up` does: the next key beside the one in use, then in its place; and no more of it after that."""
        following = HostKey.of(f"hs_test_key_{self.random.random()}")
        self.say("rotate the key")
        if len(self.keys) == 1:
            self.keys = [self.keys[0], following]
            asyncio.get_running_loop().call_later(300, lambda: self.keys.pop(0))

    async def _fail_over(self) -> None:
        """To a replica that lacks the last second."""
        self._take_dump(newest=2)

    async def _restore(self) -> None:
        self._take_dump(newest=40)

    def _take_dump(self, *, newest: int) -> None:
        dumps = [each for each in list(self.engine.dumps)[-newest:] if _NAME in each[1].names]
        if dumps:
            at_s, books = self.random.choice(dumps)
            self.say(f"the engine is as it was at {at_s:.1f}")
            self.engine.books, self.engine.is_sure = books.copy(), False
            self.engine.dumps.clear()

    async def _jump(self) -> None:
        self.engine.clock_ahead_s += self.random.choice([-100.0, -10.0, 10.0, 100.0])
        self.engine.is_sure = False
        self.say("the engine's clock jumps")

    async def _dump(self) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < self.faulty_s:
            await asyncio.sleep(0.5)
            self.engine.dumps.append((loop.time(), self.engine.books.copy()))

    # what must be true

    def begins(self, process: SimulatedProcess, batch: str, number: int) -> None:
        """A line is sent: only while its chunk is this process's, as far as the engine could ever know."""
        self.sent[number] += 1
        books = self.engine.books
        if not self.engine.is_sure or self.late:
            return
        if self.kept_at_s.get(number, 1e9) < self.begun_at_s.get((process.name, batch, number), -1e9):
            self.broken.append(f"{process.name} begins line {number}, which it was told to be done")
        for entry, chunk in books.stream.items():
            if chunk.batch == batch and chunk.first <= number <= chunk.last:
                held = books.held.get(entry)
                if held is None or held.consumer != process.name:
                    self.broken.append(f"{process.name} begins line {number}, whose chunk is {held}'s")

    def is_given(self, consumer: str, chunk: Chunk) -> None:
        """A process is told which lines of a chunk are done."""
        now_s = asyncio.get_running_loop().time()
        for number in range(chunk.first, chunk.last + 1):
            self.begun_at_s[consumer, chunk.batch, number] = now_s

    def keeps(self, number: int) -> None:
        """A result is kept: once."""
        self.kept[number] += 1
        self.kept_at_s[number] = asyncio.get_running_loop().time()
        if self.kept[number] > 1 and self.engine.is_sure:
            self.broken.append(f"line {number} has two results")

    def _look_at_output(self) -> None:
        found: Counter[int] = Counter()
        for name in ("out.jsonl", "out.errors"):
            path = self.folder / name
            for line in path.read_text().splitlines() if path.exists() else ():
                told = json.loads(line)
                number = int(told["id"].removeprefix("batch_req_"))
                found[number] += 1
                if name == "out.jsonl" and told["response"]["body"] != {"line": number}:
                    self.broken.append(f"line {number} has another's answer")
        if not self.is_fetched:
            self.broken.append(f"not fetched after {LIMIT_S} s: {self.engine.books.names}")
        if found != Counter(self.wanted):
            self.broken.append(
                f"missing {Counter(self.wanted) - found}, too many {found - Counter(self.wanted)}"
            )

    def check(self) -> None:
        assert not self.broken, self.story(self.broken[0])

    def story(self, what: str) -> str:
        return f"seed {self.seed}: {what}\n  " + "\n  ".join(self.log[-30:])


class Link:
    """A process' calls to the engine; each may be lost before or after it was processed, or be processed late."""

    def __init__(self, world: World, process: SimulatedProcess) -> None:
        self._world = world
        self._process = process

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(self._call, "close" if name == "close_batch" else name)

    async def _call(self, name: str, *given: Any, **named: Any) -> Any:
        world, rate = self._world, self._world.random
        world.calls += 1
        await asyncio.sleep(rate.uniform(0.001, 0.2))
        answer = None
        is_lost = not world.engine.is_up or rate.random() < world.loss
        if not is_lost:
            answer = self._process_call(name, given, named)
            is_lost = rate.random() < world.loss
        elif rate.random() < world.late:
            asyncio.get_running_loop().call_later(
                rate.uniform(0, 100), self._process_call, name, given, named
            )
        await asyncio.sleep(ANSWER_S if is_lost else rate.uniform(0.001, 0.2))
        await self._process.reached()
        if is_lost:
            raise EngineError("no answer")
        return answer

    def _process_call(self, name: str, given: Sequence[Any], named: dict[str, Any]) -> Any:
        engine = self._world.engine
        if name in _TIMED:
            now_s = asyncio.get_running_loop().time() + engine.clock_ahead_s
            named = {**named, "now_ms": int(now_s * 1000)}
        answer = getattr(engine.books, name)(*given, **named)
        if answer is Kept.KEPT:
            self._world.keeps(given[1])
        if name == "begin":
            self._world.is_given(*given)
        return answer


class Sends:
    """A process' gateway: slow, sometimes away, sometimes out of money."""

    def __init__(self, world: World, process: SimulatedProcess) -> None:
        self._world = world
        self._process = process

    async def send(self, line: RequestLine, *, batch_name: str = "") -> Answer:
        world, rate = self._world, self._world.random
        world.begins(self._process, batch_name, line.number)
        await asyncio.sleep(rate.uniform(0.05, world.slow_s))
        await self._process.reached()
        kind = rate.random()
        if kind < 0.005:
            raise GatewayAbsentError("no gateway")
        if kind < 0.01:
            return Answer(429, "budget_exceeded", "no money", "", 0.0, b"{}")
        if kind < 0.05:
            return Answer(400, "bad", "no", "", 0.0, b"{}")
        return Answer(200, "", "", "r", 0.0, json.dumps({"line": line.number}).encode())
