"""The memory of limits of models and upstreams: what was sent under each, on disk the moment that it is.

A day's requests are too many to note one by one, so each window is sixty buckets in a mapped file, which outlives the
process. A bucket counts until its last moment leaves the window: what the next process reads is never less than was
sent. Each process writes to a file of its own, so that one may start while another one still drains.
"""

import mmap
import os
import re
import struct
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from ai_client.admission.sent_log import take_file

_BUCKETS: Final = 64
#: A window is so many buckets, which leaves some for its two ends.
_PARTS_OF_SPAN: Final = 60
_WORDS: Final = 2 + 3 * _BUCKETS
_REGION: Final = struct.Struct(f"<16s{3 * _BUCKETS}q")
#: 400 KB. Of more windows than that the last ones are not remembered.
_MOST_REGIONS: Final = 256
_NAME: Final = "meters-{}.map"
_FILE_NAME: Final = re.compile(r"meters-\d+\.map")
_NOBODY: Final = bytes(16)
_MOST: Final = 2**62


class MeterLog:
    """The file of this process, in a folder with those of the ones before it. Raises OSError where it can't write."""

    def __init__(self, folder: Path) -> None:
        """Takes the first file that no living process holds, and goes on with what is in it."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._file = take_file(folder, _NAME)
        size = _MOST_REGIONS * _REGION.size
        try:
            os.posix_fallocate(self._file, 0, size)
            os.ftruncate(self._file, size)
            self._map = mmap.mmap(self._file, size)
        except OSError:
            os.close(self._file)
            raise
        self._numbers = memoryview(self._map).cast("q")
        self._regions = {
            digest: index for index, (digest, _) in enumerate(_regions(bytes(self._map))) if digest != _NOBODY
        }

    def region(self, window: str) -> int | None:
        """Where that window is noted; None where there is no room for more."""
        digest = _digest(window)
        index = self._regions.get(digest)
        if index is None and len(self._regions) < _MOST_REGIONS and self._file >= 0:
            index = self._regions[digest] = len(self._regions)
            self._map[index * _REGION.size : index * _REGION.size + len(digest)] = digest
        return index

    def add(self, region: int, *, span_s: float, at_s: float, requests: int, tokens: int) -> None:
        """So many more were sent at `at_s` (wall clock), in a window of `span_s`. Tokens may be given back."""
        if self._file < 0:
            return
        bucket = _bucket(at_s, span_s)
        place = region * _WORDS + 2 + 3 * (bucket % _BUCKETS)
        numbers = self._numbers
        if numbers[place] != bucket:
            if not requests:
                return  # what is settled later than its window counts no more
            numbers[place + 1] = numbers[place + 2] = 0
            numbers[place] = bucket
        numbers[place + 1] = min(numbers[place + 1] + requests, _MOST)
        numbers[place + 2] = max(0, min(numbers[place + 2] + tokens, _MOST))

    def begin_again(self, region: int) -> None:
        """What this process noted there is to be noted anew."""
        if self._file >= 0:
            place = region * _WORDS + 2
            for number in range(place, place + 3 * _BUCKETS):
                self._numbers[number] = 0

    def entries(self, window: str, *, span_s: float, now_s: float) -> dict[str, Any]:
        """What all processes of this folder have sent under that window, for `SlidingWindow.restore`."""
        digest, least = _digest(window), _bucket(now_s, span_s) - _BUCKETS
        found: list[list[float | int]] = []
        for content in self._contents():
            for known, buckets in _regions(content):
                if known == digest:
                    found += [
                        [min(now_s, (bucket + 1) * span_s / _PARTS_OF_SPAN), requests, tokens]
                        for bucket, requests, tokens in buckets
                        if bucket >= least and requests > 0 and tokens >= 0
                    ]
        return {"version": 1, "entries": sorted(found)}

    def close(self) -> None:
        """Leaves the file to the next process."""
        if self._file >= 0:
            self._numbers.release()
            self._map.close()
            os.close(self._file)
            self._file = -1

    def _contents(self) -> Iterator[bytes]:
        for path in sorted(self._folder.iterdir()):
            if _FILE_NAME.fullmatch(path.name) and path.is_file():
                yield path.read_bytes()


def _bucket(at_s: float, span_s: float) -> int:
    return int(at_s * _PARTS_OF_SPAN / span_s)


def _digest(window: str) -> bytes:
    return blake2b(window.encode(), digest_size=16).digest()


def _regions(content: bytes) -> Iterator[tuple[bytes, list[tuple[int, int, int]]]]:
    whole = len(content) - len(content) % _REGION.size
    for digest, *numbers in _REGION.iter_unpack(content[:whole]):
        triples = iter(numbers)
        yield digest, list(zip(triples, triples, triples, strict=True))
