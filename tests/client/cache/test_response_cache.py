"""The response cache on a real file: what it keeps, what it never keeps, and what it survives."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ai_client.cache.file import newest_path
from ai_client.cache.response_cache import ResponseCache
from ai_client.cache.writer import DAMAGED_NAME
from ai_client.contract.events import Event, EventStream, StoreDegraded
from ai_client.contract.request import Request, Usage
from ai_client.contract.stores import Cache, CachedResponse
from tests.client.hand_clock import HandClock

MEGABYTE = 1_000_000
BODY = b'{"id":"a","choices":[{"message":{"content":"hi"}}]}'
STREAM = b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\ndata: [DONE]\n\n'


def answer(body: bytes = BODY, *, status: int = 200, stream: bool = False) -> CachedResponse:
    return CachedResponse(
        status=status,
        headers={"content-type": "application/json"},
        body=body,
        model="gpt-4.1",
        stream=stream,
        usage=Usage(10, 2, 4),
    )


def key_of(number: int) -> str:
    return f"{number:016x}".ljust(64, "0")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def cache(tmp_path: Path, clock: HandClock) -> Iterator[ResponseCache]:
    made = ResponseCache(tmp_path / "cache", scope="https://up/v1", max_bytes=8 * MEGABYTE, clock=clock)
    yield made
    made.close()


def file_of(cache_dir: Path) -> Path:
    return newest_path(cache_dir / "cache")


def test_it_is_the_cache_that_the_client_asks_for(cache: ResponseCache) -> None:
    """ports.Cache is the contract; the assignment is checked by mypy."""
    port: Cache = cache
    request = Request(endpoint="chat/completions", body={"model": "gpt-4.1", "messages": []})
    key = port.key(request, "team-a")
    assert len(bytes.fromhex(key)) == 32
    assert port.get(key) is None


@pytest.mark.parametrize(("body", "stream"), [(BODY, False), (STREAM, True)])
def test_an_answer_comes_back_byte_for_byte(cache: ResponseCache, body: bytes, stream: bool) -> None:
    """Before it is written, and from the file afterwards; with status, headers, model and usage."""
    stored = answer(body, stream=stream)
    cache.put(key_of(1), stored, ttl_s=60)
    assert cache.get(key_of(1)) == stored
    cache.flush()
    assert cache.get(key_of(1)) == stored


def test_an_answer_survives_a_new_start(tmp_path: Path, cache: ResponseCache, clock: HandClock) -> None:
    """The file outlives the process."""
    cache.put(key_of(1), answer(), ttl_s=60)
    cache.close()
    later = ResponseCache(tmp_path / "cache", scope="https://up/v1", max_bytes=MEGABYTE, clock=clock)
    assert later.get(key_of(1)) == answer()
    later.close()


def test_an_answer_expires_with_its_time_to_live(cache: ResponseCache, clock: HandClock) -> None:
    """At the second itself it is gone already."""
    cache.put(key_of(1), answer(), ttl_s=60)
    clock.now_s += 59.9
    assert cache.get(key_of(1)) is not None
    clock.now_s += 0.1
    assert cache.get(key_of(1)) is None


def test_an_answer_from_the_future_is_not_used(cache: ResponseCache, clock: HandClock) -> None:
    """After the clock was set back, the age of what is stored is unknown."""
    cache.put(key_of(1), answer(), ttl_s=60)
    clock.now_s -= 3_600
    assert cache.get(key_of(1)) is None


@pytest.mark.parametrize(
    "unfit",
    [
        answer(status=500),
        answer(b""),
        answer(BODY[:-5]),
        answer(b'{"error": {"message": "overloaded"}}'),
        answer(STREAM[:-16], stream=True),
        answer(b'data: {"error": {"message": "boom"}}\n\ndata: [DONE]\n\n', stream=True),
        answer(b'data: {"choices":[{"delta":{"content":"data: [DONE]"}}]}\n\n', stream=True),
    ],
    ids=["status", "empty", "cut off", "error body", "stream cut off", "stream error", "marker in text"],
)
def test_an_error_or_a_truncated_answer_is_never_kept(cache: ResponseCache, unfit: CachedResponse) -> None:
    """The next caller must ask the upstream again."""
    cache.put(key_of(1), unfit, ttl_s=60)
    cache.flush()
    assert cache.get(key_of(1)) is None
    assert cache.stats().stores == 0


def test_an_answer_with_an_empty_error_member_is_kept(cache: ResponseCache) -> None:
    """`"error": null` is how some upstreams say that all went well."""
    cache.put(key_of(1), answer(b'{"error": null, "choices": []}'), ttl_s=60)
    assert cache.get(key_of(1)) is not None


def test_a_time_to_live_of_nothing_keeps_nothing(cache: ResponseCache) -> None:
    """0 turns the cache off for an endpoint."""
    cache.put(key_of(1), answer(), ttl_s=0)
    assert cache.get(key_of(1)) is None


def test_the_files_are_readable_by_their_owner_alone(tmp_path: Path, cache: ResponseCache) -> None:
    """Answers are as confidential as what was asked: mode 0600, the WAL too, whatever the umask."""
    before = os.umask(0)
    try:
        cache.put(key_of(1), answer(), ttl_s=60)
        cache.flush()
    finally:
        os.umask(before)
    files = list((tmp_path / "cache").iterdir())
    assert len(files) >= 2
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_the_file_stays_within_its_bound_and_the_most_recently_used_stay(
    tmp_path: Path, clock: HandClock
) -> None:
    """Ten times the bound goes in; the entry that is read all the while is still there."""
    cache = ResponseCache(tmp_path / "cache", scope="s", max_bytes=2 * MEGABYTE, clock=clock)
    cache.put(key_of(0), answer(), ttl_s=10**6)
    body = b'{"x":"' + b"x" * 50_000 + b'"}'
    for number in range(1, 400):
        clock.now_s += 1
        assert cache.get(key_of(0)) is not None
        cache.put(key_of(number), answer(body), ttl_s=10**6)
        cache.flush()
        assert file_of(tmp_path).stat().st_size <= 2 * MEGABYTE
    assert cache.stats().evicted > 300
    assert cache.get(key_of(1)) is None
    assert cache.get(key_of(399)) is not None
    cache.close()


def test_a_bound_that_was_lowered_shrinks_the_file(tmp_path: Path, clock: HandClock) -> None:
    """Space goes back to the disk, not only to a free list."""
    big = ResponseCache(tmp_path / "cache", scope="s", max_bytes=20 * MEGABYTE, clock=clock)
    for number in range(60):
        big.put(key_of(number), answer(b'{"x":"' + b"x" * 100_000 + b'"}'), ttl_s=10**6)
    big.close()
    assert file_of(tmp_path).stat().st_size > 6 * MEGABYTE
    small = ResponseCache(tmp_path / "cache", scope="s", max_bytes=2 * MEGABYTE, clock=clock)
    small.put(key_of(99), answer(), ttl_s=10**6)
    small.close()
    assert file_of(tmp_path).stat().st_size <= 2 * MEGABYTE


def test_an_answer_larger_than_its_share_is_not_kept(cache: ResponseCache) -> None:
    """One answer must not evict everything else."""
    cache.put(key_of(1), answer(b'{"x":"' + b"x" * (2 * MEGABYTE) + b'"}'), ttl_s=60)
    assert cache.get(key_of(1)) is None
    assert cache.stats().dropped == 1


def listening() -> tuple[EventStream, list[Event]]:
    events = EventStream()
    seen: list[Event] = []
    events.subscribe(seen.append)
    return events, seen


def test_a_file_that_is_no_database_is_set_aside_and_replaced(tmp_path: Path, clock: HandClock) -> None:
    """The cache says so once, counts it, heals, and works again in the same process."""
    (tmp_path / "cache").mkdir()
    file_of(tmp_path).write_bytes(b"not a database " * 1000)
    events, seen = listening()
    cache = ResponseCache(tmp_path / "cache", scope="s", max_bytes=MEGABYTE, clock=clock, events=events)
    assert cache.get(key_of(1)) is None
    cache.flush()
    cache.put(key_of(1), answer(), ttl_s=60)
    cache.flush()
    assert cache.get(key_of(1)) == answer()
    assert [type(event) for event in seen] == [StoreDegraded]
    assert cache.stats().healed == 1
    assert cache.stats().errors >= 1
    assert (tmp_path / "cache" / DAMAGED_NAME).read_bytes().startswith(b"not a database")
    cache.close()


def test_a_page_that_was_overwritten_never_gives_a_wrong_answer(tmp_path: Path, clock: HandClock) -> None:
    """Each page of the file in turn is filled with rubbish under a running cache: right answers or none."""
    cache = ResponseCache(tmp_path / "cache", scope="s", max_bytes=MEGABYTE, clock=clock)
    bodies = {key_of(n): b'{"x":"%d' % n + b"x" * 3_000 + b'"}' for n in range(1, 20)}
    for key, body in bodies.items():
        cache.put(key, answer(body), ttl_s=10**6)
    cache.close()
    whole = file_of(tmp_path).read_bytes()
    for page in range(len(whole) // 4096):
        start = page * 4096
        file_of(tmp_path).write_bytes(whole[:start] + b"\xa5" * 4096 + whole[start + 4096 :])
        damaged = ResponseCache(tmp_path / "cache", scope="s", max_bytes=MEGABYTE, clock=clock)
        for key, body in bodies.items():
            found = damaged.get(key)
            assert found is None or found.body == body
        damaged.flush()
        damaged.put(key_of(50), answer(), ttl_s=60)
        damaged.flush()
        assert damaged.get(key_of(50)) == answer()
        damaged.close()


def test_it_goes_on_where_the_directory_can_not_be_made(tmp_path: Path, clock: HandClock) -> None:
    """A file stands where the directory should be: no answer is kept, nothing is raised, it is told once."""
    (tmp_path / "cache").write_text("in the way")
    events, seen = listening()
    cache = ResponseCache(tmp_path / "cache", scope="s", max_bytes=MEGABYTE, clock=clock, events=events)
    for number in range(3):
        assert cache.get(key_of(number)) is None
        cache.put(key_of(number), answer(), ttl_s=60)
        cache.flush()
    assert len(seen) == 1
    (tmp_path / "cache").unlink()
    clock.now_s += 31
    cache.put(key_of(1), answer(), ttl_s=60)
    cache.flush()
    assert cache.get(key_of(1)) == answer()
    cache.close()


def test_a_cache_deleted_under_a_running_process_is_made_anew(
    tmp_path: Path, cache: ResponseCache, clock: HandClock
) -> None:
    """`rm` of the files is a usual way to clear a cache; the next answer begins a new file."""
    cache.put(key_of(1), answer(), ttl_s=60)
    cache.flush()
    assert cache.get(key_of(1)) is not None
    for file in (tmp_path / "cache").iterdir():
        file.unlink()
    cache.put(key_of(2), answer(), ttl_s=60)
    cache.flush()
    assert cache.get(key_of(1)) is None
    assert cache.get(key_of(2)) is not None
    assert file_of(tmp_path).exists()


def test_a_write_lock_held_by_another_process_does_not_stop_reads(
    tmp_path: Path, cache: ResponseCache
) -> None:
    """WAL: a reader sees the last committed state while someone writes."""
    cache.put(key_of(1), answer(), ttl_s=60)
    cache.flush()
    other = sqlite3.connect(file_of(tmp_path), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        assert cache.get(key_of(1)) is not None
    finally:
        other.execute("ROLLBACK")
        other.close()


CHILD = """
import resource, sys
from pathlib import Path
from ai_client.cache.response_cache import ResponseCache
from ai_client.contract.stores import CachedResponse

directory, mode = Path(sys.argv[1]), sys.argv[2]
cache = ResponseCache(directory, scope="s", max_bytes=50_000_000)

def put(number, size):
    body = b'{"n":%d,"x":"' % number + b"x" * size + b'"}'
    response = CachedResponse(status=200, headers={}, body=body, model="m")
    cache.put(f"{number:016x}".ljust(64, "0"), response, ttl_s=3600)

if mode == "killed":
    number = 0
    while True:
        number += 1
        put(number, 2_000)
        if number % 20 == 0:
            cache.flush()
            print(number, flush=True)
else:
    put(1, 2_000)
    cache.flush()
    # The kernel refuses every write beyond this size, as a full disk does.
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    for number in range(2, 60):
        put(number, 20_000)
        cache.flush()
    first = cache.get("1".zfill(16).ljust(64, "0"))
    stats = cache.stats()
    cache.close()
    print(first is not None, stats.dropped > 0, stats.errors > 0, flush=True)
"""


def test_a_full_disk_costs_new_answers_and_nothing_else(tmp_path: Path) -> None:
    """Writes fail; what is stored can still be read, nothing is raised, losses are counted."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, tmp_path / "cache", "full"], capture_output=True, check=True, timeout=60
    )
    assert done.stdout.split() == [b"True", b"True", b"True"], done.stderr.decode()
    later = ResponseCache(tmp_path / "cache", scope="s", max_bytes=MEGABYTE)
    assert later.get(key_of(1)) is not None
    later.close()


def test_a_kill_in_the_middle_of_writing_loses_no_answer_that_was_flushed(tmp_path: Path) -> None:
    """Killed while the thread writes, five times over: every flushed answer is there, and whole."""
    for _ in range(5):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, tmp_path / "cache", "killed"], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(10)]
        child.kill()
        child.wait(timeout=30)
        child.stdout.close()
        flushed = int(lines[-1])
        cache = ResponseCache(tmp_path / "cache", scope="s", max_bytes=50 * MEGABYTE)
        for number in range(1, flushed + 1):
            found = cache.get(key_of(number))
            assert found is not None
            assert found.body == b'{"n":%d,"x":"' % number + b"x" * 2_000 + b'"}'
        assert cache.stats().errors == 0
        cache.close()


def test_two_processes_share_the_directory(tmp_path: Path, cache: ResponseCache, clock: HandClock) -> None:
    """What one stores the other finds, also after one of them has set a damaged file aside."""
    other = ResponseCache(tmp_path / "cache", scope="https://up/v1", max_bytes=8 * MEGABYTE, clock=clock)
    cache.put(key_of(1), answer(), ttl_s=60)
    cache.flush()
    assert other.get(key_of(1)) is not None
    other.put(key_of(2), answer(), ttl_s=60)
    other.flush()
    assert cache.get(key_of(2)) is not None
    cache._writer.heal(file_of(tmp_path))
    cache.put(key_of(3), answer(), ttl_s=60)
    cache.flush()
    other.put(key_of(4), answer(), ttl_s=60)
    other.flush()
    for each in (cache, other):
        assert [each.get(key_of(n)) is not None for n in (1, 2, 3, 4)] == [False, False, True, True]
    other.close()


def test_an_answer_put_twice_is_there_once(cache: ResponseCache) -> None:
    """The newer one counts, and the older one leaves no bytes behind."""
    for number in range(50):
        cache.put(key_of(1), answer(b'{"n":%d}' % number), ttl_s=60)
        cache.flush()
    found = cache.get(key_of(1))
    assert found is not None
    assert found.body == b'{"n":49}'
    db = sqlite3.connect(newest_path(cache._directory))
    assert db.execute("SELECT (SELECT count(*) FROM answer), (SELECT count(*) FROM entry)").fetchone() == (
        1,
        1,
    )
    db.close()


def test_expired_answers_leave_the_disk_though_there_is_room(cache: ResponseCache, clock: HandClock) -> None:
    """Looked for once a minute, with the next answer."""
    for number in range(30):
        cache.put(key_of(number), answer(), ttl_s=60)
    cache.flush()
    clock.now_s += 61
    cache.put(key_of(99), answer(), ttl_s=60)
    cache.flush()
    db = sqlite3.connect(newest_path(cache._directory))
    assert db.execute("SELECT count(*) FROM answer").fetchone() == (1,)
    db.close()


def test_a_clock_set_back_does_not_keep_used_answers_for_ever(tmp_path: Path, clock: HandClock) -> None:
    """Marked as used in what is now the future, they still give way."""
    cache = ResponseCache(tmp_path / "cache", scope="s", max_bytes=2 * MEGABYTE, clock=clock)
    body = b'{"x":"' + b"x" * 50_000 + b'"}'
    for number in range(30):
        cache.put(key_of(number), answer(body), ttl_s=10**6)
        cache.flush()
        clock.now_s += 1
        assert cache.get(key_of(number)) is not None
    clock.now_s -= 10_000
    for number in range(100, 160):
        cache.put(key_of(number), answer(body), ttl_s=10**6)
        cache.flush()
        assert file_of(tmp_path).stat().st_size <= 2 * MEGABYTE
    assert cache.get(key_of(159)) is not None
    cache.close()
