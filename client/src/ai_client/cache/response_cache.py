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

from ai_client.cache.file import (
    CacheFile,
    DamagedEntryError,
    StoredAnswer,
    newest_path,
)
from ai_client.cache.key import KEY_BYTES, cache_key
from ai_client.cache.writer import CacheWriter
from ai_client.contract.events import EventStream, StoreDegraded
from ai_client.contract.request import Request, Usage
from ai_client.contract.stores import CachedResponse
from ai_client.dialects.body_reader import read_body
from ai_client.dialects.stream_reader import END_EVENT, is_whole_stream
from ai_client.platform.json_text import read_json, write_json
from ai_client.platform.sqlite_file import is_busy, is_corrupt

_READ_TIMEOUT_S: Final = 0.02
_READ_PAUSE_S: Final = 1.0
_LARGEST_SHARE: Final = 8
_OK_STATUS: Final = range(200, 300)
# A larger body was judged when it came; here it only has to end as JSON does.
_JUDGED_BYTES: Final = 64 * 1024
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
        """The entry of `key` that has not expired, or None; about 10 µs, half of that where there is none."""
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
            return reader.read(key)
        except DamagedEntryError as error:
            self._writer.forget(key)
            self._note(error)
        except sqlite3.Error as error:
            self._fail(error, reader.path)
        return None

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
    if response.stream:
        # It was judged as it came; reading it again takes twenty times as long as the look for the word.
        has_end = response.body.endswith(END_EVENT)
        return is_whole_stream(response.body) if not has_end or b"error" in response.body else True
    if response.is_judged:
        return True
    if len(response.body) > _JUDGED_BYTES:
        return _JSON_END.search(response.body[-_TAIL_BYTES:]) is not None
    verdict = read_body(response.body, "")
    return verdict.fault is None and verdict.trouble is None


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
