"""Answers that came packed although nobody asked for it (`Accept-Encoding: identity`): some proxies do so."""

from __future__ import annotations

import zlib
from typing import Final

from ai_client.errors import MalformedResponseError
from ai_client.transport.base import MOST_ANSWER_BYTES, endless_answer

# Text packs to a tenth or a twentieth. Beyond this it is made to fill our memory.
_MOST_GROWTH: Final = 200
_ALWAYS_ALLOWED_BYTES: Final = 1024 * 1024
_NO_PACKING: Final = frozenset(
    ("", "identity", "none", "null", "utf-8", "utf8", "us-ascii", "binary", "8bit", "chunked")
)
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS


class Unpacker:
    """Unpacks gzip and deflate piece by piece. Raises MalformedResponseError.

    A gzip answer may be several members, one behind the other (RFC 1952 2.2); a deflate one may lack its zlib header.
    """

    def __init__(self, host: str, *, window_bits: int) -> None:
        self._host = host
        self._window_bits = window_bits
        self._stream = zlib.decompressobj(window_bits)
        self._packed_bytes = self._unpacked_bytes = 0

    def unpack(self, data: bytes) -> bytes:
        """What `data` adds; b"" where it is too little to tell."""
        if self._packed_bytes == 0 and self._window_bits == zlib.MAX_WBITS and data and data[0] & 0x0F != 8:
            self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self._packed_bytes += len(data)
        pieces = []
        while data:
            if self._stream.eof:
                if self._window_bits != _GZIP_WINDOW or not data.strip(b"\0"):
                    break
                self._stream = zlib.decompressobj(self._window_bits)
            pieces.append(self._unpacked(data))
            data = self._stream.unused_data
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _unpacked(self, data: bytes) -> bytes:
        most = _ALWAYS_ALLOWED_BYTES + _MOST_GROWTH * self._packed_bytes - self._unpacked_bytes
        try:
            unpacked = self._stream.decompress(data, min(most, MOST_ANSWER_BYTES - self._unpacked_bytes) or 1)
        except zlib.error as error:
            raise MalformedResponseError(self._host, f"packed its answer wrongly: {error}") from error
        self._unpacked_bytes += len(unpacked)
        if self._unpacked_bytes >= MOST_ANSWER_BYTES:
            raise endless_answer(self._host)
        if self._stream.unconsumed_tail:
            raise MalformedResponseError(
                self._host, f"sent an answer that grows over {_MOST_GROWTH} times when it is unpacked"
            )
        return unpacked

    @property
    def is_at_end(self) -> bool:
        """Whether the packed data came to its own end."""
        return self._stream.eof


def unpacker_for(encoding: str, host: str) -> Unpacker | None:
    """None where nothing is to be done. Raises MalformedResponseError where we can't.

    Names of character sets and the like in its place are no packing.
    """
    packings = [name for each in encoding.split(",") if (name := each.strip().lower()) not in _NO_PACKING]
    match packings:
        case []:
            return None
        case ["gzip" | "x-gzip"]:
            return Unpacker(host, window_bits=_GZIP_WINDOW)
        case ["deflate"]:
            return Unpacker(host, window_bits=zlib.MAX_WBITS)
        case _:
            raise MalformedResponseError(host, f"answered packed as {encoding!r}, which was not asked for")
