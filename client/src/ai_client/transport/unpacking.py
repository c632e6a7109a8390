"""Answers that came packed although nobody asked for it (`Accept-Encoding: identity`): some proxies do so."""

from __future__ import annotations

import zlib
from typing import Final

from ai_client.errors import MalformedResponseError

# Text packs to a tenth or a twentieth. Beyond this it is made to fill our memory.
_MOST_GROWTH: Final = 200
_ALWAYS_ALLOWED_BYTES: Final = 1024 * 1024
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS


class Unpacker:
    """Unpacks gzip and deflate piece by piece. Raises MalformedResponseError."""

    def __init__(self, host: str, *, window_bits: int) -> None:
        self._host = host
        self._stream = zlib.decompressobj(window_bits)
        self._packed_bytes = self._unpacked_bytes = 0

    def unpack(self, data: bytes) -> bytes:
        """What `data` adds; b"" where it is too little to tell."""
        self._packed_bytes += len(data)
        most = _ALWAYS_ALLOWED_BYTES + _MOST_GROWTH * self._packed_bytes - self._unpacked_bytes
        try:
            unpacked = self._stream.decompress(data, most)
        except zlib.error as error:
            raise MalformedResponseError(self._host, f"packed its answer wrongly: {error}") from error
        self._unpacked_bytes += len(unpacked)
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
    """None where nothing is to be done. Raises MalformedResponseError where we can't."""
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip":
            return Unpacker(host, window_bits=_GZIP_WINDOW)
        case "deflate":
            return Unpacker(host, window_bits=zlib.MAX_WBITS)
        case _:
            raise MalformedResponseError(host, f"answered packed as {encoding!r}, which was not asked for")
