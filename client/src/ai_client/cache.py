"""The response cache: answers on disk, read in microseconds on the event loop, written in a thread.

The cache is a convenience: whatever happens to its file (full disk, damage, a lock held too long), requests go on
without it. The first trouble is told once (`StoreDegraded`), each one is counted, and a damaged file is set aside for
a new one.
"""

import re
import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import time as wall_clock
from typing import Final

from ai_client.cache_file import (
    CacheFile,
    DamagedEntryError,
    StoredAnswer,
    newest_path,
    row_id,
)
from ai_client.cache_key import KEY_BYTES, cache_key
from ai_client.cache_writer import CacheWriter
from ai_client.events import EventStream, StoreDegraded
from ai_client.json_text import read_json, write_json
from ai_client.ports import CachedResponse
from ai_client.request import Request, Usage
from ai_client.sqlite_file import is_busy, is_corrupt

_READ_TIMEOUT_S: Final = 0.02
_READ_PAUSE_S: Final = 1.0
# How long an answer that another process has put may go unnoticed.
_LOOK_EVERY_S: Final = 0.1
_LARGEST_SHARE: Final = 8
_OK_STATUS: Final = range(200, 300)
# Text of a model can't look like these: within JSON strings, quotes and line ends are escaped.
_STREAM_END: Final = re.compile(rb"(?:^|\n)data: ?\[DONE\]\s*\Z")
_STREAM_ERROR: Final = re.compile(rb"^(?:event: ?error|data: ?\{\s*\"error\"\s*:\s*[^n\s])", re.MULTILINE)
_JSON_ERROR: Final = re.compile(rb"\s*\{\s*\"error\"\s*:\s*[^n\s]")
_JSON_END: Final = re.compile(rb"[}\]]\s*\Z")
_TAIL_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Counts since the start. `dropped` answers could not be stored, `errors` is every trouble with the file."""

    hits: int
    misses: int
    stores: int
    dropped: int
    evicted: int
    errors: int
    healed: int


class ResponseCache:
    """Implements `ports.Cache` on one SQLite file; several processes may share the directory.

    `scope` names the upstream (its base URL): answers of another one are never returned.
    """

    def __init__(
        self,
        directory: Path,
        *,
        scope: str,
        max_bytes: int,
        events: EventStream | None = None,
        clock: Callable[[], float] = wall_clock,
    ) -> None:
        self._directory = directory
        self._scope = scope
        self._largest_bytes = max_bytes // _LARGEST_SHARE
        self._events = events or EventStream()
        self._clock = clock
        self._writer = CacheWriter(directory, max_bytes=max_bytes, clock=clock)
        self._reader: CacheFile | None = None
        self._failed_at_s: float | None = None
        self._looked_at_s = 0.0
        self._is_told = False
        self._is_closed = False
        self._hits = self._misses = self._stores = self._errors = self._refused = 0

    def key(self, request: Request, tenant: str) -> str:
        """64 hex digits; for a body that is not JSON a key that no other request has."""
        key = cache_key(
            scope=self._scope,
            tenant=tenant,
            endpoint=request.endpoint,
            stream=request.stream,
            body=request.body,
        )
        return key.hex() if key is not None else secrets.token_hex(KEY_BYTES)

    def get(self, key: str) -> CachedResponse | None:
        """The entry of `key` that has not expired, or None; about 10 µs, less where there is none."""
        raw = bytes.fromhex(key)
        answer = self._writer.waiting(raw) or self._read(raw)
        # An entry from the future means that the clock was set back: how old it is can't be told.
        if answer is None or not answer.stored_at_s <= self._clock() < answer.expires_at_s:
            self._misses += 1
            return None
        self._hits += 1
        if answer.is_unused:
            self._writer.touch(raw)
        return _as_response(answer)

    def put(self, key: str, response: CachedResponse, *, ttl_s: float) -> None:
        """Keeps a whole, successful answer for `ttl_s`; anything else is dropped silently, as is a huge one."""
        if self._writer.troubles:
            self._tell()
        if ttl_s <= 0 or self._is_closed or not is_storable(response):
            return
        if len(response.body) > self._largest_bytes:
            self._refused += 1
            return
        now_s = self._clock()
        self._stores += 1
        self._writer.put(
            bytes.fromhex(key), StoredAnswer(now_s, now_s + ttl_s, _facts(response), bytes(response.body))
        )

    def flush(self) -> None:
        """Blocks until every answer that was put is in the file."""
        self._writer.flush()

    def stats(self) -> CacheStats:
        """Counts since the start."""
        if self._writer.troubles:
            self._tell()
        return CacheStats(
            hits=self._hits,
            misses=self._misses,
            stores=self._stores,
            dropped=self._writer.dropped + self._refused,
            evicted=self._writer.evicted,
            errors=self._errors,
            healed=self._writer.healed,
        )

    def close(self) -> None:
        """Writes what was put and closes the file. A second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self._writer.close()
        self._close_reader()

    def _read(self, key: bytes) -> StoredAnswer | None:
        reader = self._opened()
        if reader is None:
            return None
        try:
            return None if self._is_absent(reader, key) else reader.read(key)
        except DamagedEntryError as error:
            self._writer.forget(key)
            self._note(error)
        except sqlite3.Error as error:
            self._fail(error, reader.path)
        return None

    def _is_absent(self, reader: CacheFile, key: bytes) -> bool:
        """Whether the file surely has no such entry, as far as it was looked at within the last moment."""
        keeper = self._writer.presence
        if keeper.current is None or keeper.current.may_have(row_id(key)):
            return False
        now_s = self._clock()
        # The distance and not the order counts, so that a clock set back can't trust an old look for ever.
        if abs(now_s - self._looked_at_s) >= _LOOK_EVERY_S:
            if reader.last_place() != keeper.seen_place:
                self._writer.catch_up()
                return False
            self._looked_at_s = now_s
        return True

    def _opened(self) -> CacheFile | None:
        if self._reader is not None and self._reader.inode == self._writer.inode:
            return self._reader
        return self._reopened()

    def _reopened(self) -> CacheFile | None:
        """A connection to the file that the writer writes to, which may be another one than before."""
        if self._writer.troubles:
            self._tell()
        if self._reader is not None and self._writer.inode is None:
            return self._reader
        self._close_reader()
        if self._is_closed or self._is_paused():
            return None
        path = newest_path(self._directory)
        try:
            reader = CacheFile(path, busy_timeout_s=_READ_TIMEOUT_S, makes_file=False)
        except (FileNotFoundError, NotADirectoryError):
            return None  # nothing was ever stored; if nothing can be, the writer says so
        except (sqlite3.Error, OSError) as error:
            self._fail(error, path)
            return None
        if reader.is_ready:
            self._failed_at_s = None
            self._reader = reader
        else:
            reader.close()
        return self._reader

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _fail(self, error: Exception, path: Path) -> None:
        if isinstance(error, sqlite3.Error) and is_busy(error):
            return  # a miss, no more
        self._close_reader()
        if newest_path(self._directory) != path:
            return  # the writer has set it aside in the meantime
        self._note(error)
        if isinstance(error, sqlite3.Error) and is_corrupt(error):
            self._writer.heal(path)
        else:
            self._failed_at_s = self._clock()

    def _is_paused(self) -> bool:
        # The distance and not the order counts, so that a clock set back can't pause for ever.
        return self._failed_at_s is not None and abs(self._clock() - self._failed_at_s) < _READ_PAUSE_S

    def _tell(self) -> None:
        while self._writer.troubles:
            self._note(self._writer.troubles.popleft())

    def _note(self, error: Exception) -> None:
        self._errors += 1
        if self._is_told:
            return
        self._is_told = True
        if self._events.active:
            reason = f"{type(error).__name__}: {error}"
            self._events.emit(StoreDegraded(at=self._clock(), store="cache", reason=reason))


def is_storable(response: CachedResponse) -> bool:
    """Whether it is a whole, successful answer: JSON, or a stream that came to its end marker without an error."""
    if response.status not in _OK_STATUS:
        return False
    tail = response.body[-_TAIL_BYTES:]
    if response.stream:
        # The pattern takes twenty times as long as the look for the word, which most streams don't have.
        is_clean = b"error" not in response.body or _STREAM_ERROR.search(response.body) is None
        return is_clean and _STREAM_END.search(tail) is not None
    return _JSON_END.search(tail) is not None and _JSON_ERROR.match(response.body) is None


def _facts(response: CachedResponse) -> str:
    usage = response.usage
    counts = None if usage is None else [usage.input_tokens, usage.output_tokens, usage.cached_input_tokens]
    facts = [response.status, dict(response.headers), response.model, response.stream, counts]
    return write_json(facts).decode()


def _as_response(answer: StoredAnswer) -> CachedResponse:
    status, headers, model, stream, counts = read_json(answer.facts.encode())
    usage = None if counts is None else Usage(*counts)
    return CachedResponse(
        status=status, headers=headers, body=answer.body, model=model, stream=stream, usage=usage
    )
