"""Bodies that callers send compressed: Codex does so where it signs in with an account. Pure.

What is unpacked is bounded as any body is, and goes upstream as plain JSON.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from ai_client.gateway.app.failures import Failure, invalid

_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
# More of them, one around the other, than anybody means.
_MOST_CODINGS: Final = 2
_NONE: Final = frozenset(("", "identity"))
_COMPRESSED: Final = 8


def _of_gzip(_: bytes) -> Any:
    return zlib.decompressobj(_GZIP_WINDOW)


def _of_deflate(data: bytes) -> Any:
    """It may lack the header of zlib."""
    return zlib.decompressobj(
        zlib.MAX_WBITS if data[:1] and data[0] & 0x0F == _COMPRESSED else -zlib.MAX_WBITS
    )


_ERRORS: tuple[type[Exception], ...] = (zlib.error,)
_unpackers: dict[str, Callable[[bytes], Any]] = {
    "gzip": _of_gzip,
    "x-gzip": _of_gzip,
    "deflate": _of_deflate,
}
if sys.version_info >= (3, 14):
    from compression import zstd

    _unpackers["zstd"] = lambda _: zstd.ZstdDecompressor()
    _ERRORS = (*_ERRORS, zstd.ZstdError)

_UNPACKERS: Final[Mapping[str, Callable[[bytes], Any]]] = MappingProxyType(_unpackers)
_KNOWN: Final = ", ".join(name for name in _UNPACKERS if name != "x-gzip")


def unpacked(body: bytes, codings: bytes, *, limit_bytes: int) -> bytes | Failure:
    """The body without the codings of its `Content-Encoding`, the last of which was put on last.

    One of more than `limit_bytes` comes back cut off after one byte more, so that whoever bounds it refuses it.
    """
    names = [each.strip().lower() for each in codings.decode("latin-1").split(",")]
    names = [name for name in names if name not in _NONE]
    if len(names) > _MOST_CODINGS or not _UNPACKERS.keys() >= set(names):
        message = (
            f"The body is compressed in a way that is not read here. Send it plain, or as one of: {_KNOWN}. "
            "(Codex: enable_request_compression = false in [features].)"
        )
        return invalid(message, param="content-encoding", code="unsupported_content_encoding", status=415)
    for name in reversed(names):
        try:
            body = _one_unpacked(body, name, limit_bytes)
        except _ERRORS as error:
            reason = str(error)
            return invalid(
                f"The body is no {name}: {reason}.", param="content-encoding", code="invalid_encoding"
            )
    return body


def _one_unpacked(body: bytes, name: str, limit_bytes: int) -> bytes:
    """Raises one of `_ERRORS`. Several members, one behind the other, are one body."""
    pieces: list[bytes] = []
    size = 0
    while body and size <= limit_bytes:
        unpacker = _UNPACKERS[name](body)
        piece = unpacker.decompress(body, limit_bytes + 1 - size)
        size += len(piece)
        pieces.append(piece)
        if not unpacker.eof:
            if size <= limit_bytes:
                raise zlib.error("it ends early")
            break
        body = unpacker.unused_data
    return b"".join(pieces)
