"""What the response cache costs: `python -m tests.bench.cache`. The baseline is a bare SQLite read of 1 KB."""

import asyncio
import sqlite3
import tempfile
from pathlib import Path

from ai_client.cache.response_cache import ResponseCache
from ai_client.contract.request import Request, Usage
from ai_client.contract.stores import CachedResponse
from ai_client.sharing.single_flight import Flights
from tests.bench.timing import Timing, show, timed, timed_async

TIMES = 20_000
ENTRIES = 10_000
BODY = b'{"id":"x","choices":[{"message":{"content":"' + b"x" * 960 + b'"}}]}'


def request(number: int) -> Request:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": f"{number} " + "word " * 100},
    ]
    body = {"model": "gpt-4.1", "messages": messages, "temperature": 0.2, "max_tokens": 200}
    return Request(endpoint="chat/completions", body=body)


def bare_sqlite(folder: Path) -> Timing:
    """One table, one prepared statement, WAL, the answer as a blob: the floor."""
    db = sqlite3.connect(folder / "bare.sqlite", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE answer(id INTEGER PRIMARY KEY, body BLOB)")
    db.execute("BEGIN")
    db.executemany("INSERT INTO answer VALUES(?, ?)", ((n, BODY) for n in range(ENTRIES)))
    db.execute("COMMIT")
    numbers = iter(range(TIMES))
    timing = timed(
        lambda: db.execute("SELECT body FROM answer WHERE id = ?", (next(numbers) % ENTRIES,)).fetchone(),
        times=TIMES,
    )
    db.close()
    return timing


async def flight() -> Timing:
    """A call that nobody shares, in a flight."""
    flights: Flights[None] = Flights(is_leaders_own=lambda error: False)
    return await timed_async(lambda: flights.run("key", lambda: asyncio.sleep(0)), times=TIMES)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        baseline = bare_sqlite(folder)
        cache = ResponseCache(folder / "cache", scope="https://up/v1", max_bytes=10**9)
        response = CachedResponse(
            status=200,
            headers={"content-type": "application/json"},
            body=BODY,
            model="gpt-4.1",
            usage=Usage(100, 200),
        )
        requests = [request(number) for number in range(ENTRIES)]
        keys = [cache.key(each, "team") for each in requests]
        numbers = iter(range(10**9))

        def put() -> None:
            cache.put(keys[next(numbers) % ENTRIES], response, ttl_s=3_600)

        stored = timed(put, times=ENTRIES)
        cache.flush()
        found = timed(lambda: cache.get(keys[next(numbers) % ENTRIES]), times=TIMES)
        missed = timed(lambda: cache.get(f"{next(numbers):064x}"), times=TIMES)
        key = timed(lambda: cache.key(requests[next(numbers) % ENTRIES], "team"), times=TIMES)
        hit = timed(lambda: cache.get(cache.key(requests[next(numbers) % ENTRIES], "team")), times=TIMES)
        cache.close()
        rows = [
            ("bare SQLite read, 1 KB", baseline),
            ("key of a 600-byte prompt", key),
            ("get, found", found),
            ("get, missed", missed),
            ("hit as the client sees it (key and get)", hit),
            ("put (on the loop; the thread writes later)", stored),
            ("a call in a flight of its own, with sleep(0)", asyncio.run(flight())),
        ]
        show(rows, baseline=baseline)


if __name__ == "__main__":
    main()
