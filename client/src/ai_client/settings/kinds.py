"""What a value may be: each kind turns a text into a value, or raises ValueError saying what it wants."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

Kind = Callable[[str], object]

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Of those that providers' pages show whole, where their base URL is asked for.
_API_PATHS = ("/chat/completions", "/completions", "/embeddings", "/responses", "/messages", "/models")
_ROUTE = re.compile(r"(?:[A-Z]+ )?/v1/[A-Za-z0-9._/-]+\*?")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}")


def boolean(text: str) -> bool:
    """`true` or `false` (also yes/no, on/off, 1/0)."""
    word = text.lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("write true or false")


def integer(*, least: int, most: int) -> Callable[[str], int]:
    """A whole number within bounds."""

    def convert(text: str) -> int:
        wanted = f"write a whole number from {least} to {most}"
        try:
            value = int(text)
        except ValueError:
            raise ValueError(wanted) from None
        if not least <= value <= most:
            raise ValueError(wanted)
        return value

    return convert


def number(*, least: float, most: float, above: bool = False) -> Callable[[str], float]:
    """A number within bounds; with `above` the lower bound itself is refused."""

    def convert(text: str) -> float:
        wanted = f"write a number {'above' if above else 'from'} {least:g} to {most:g}"
        try:
            value = float(text)
        except ValueError:
            raise ValueError(wanted) from None
        # A NaN fails both comparisons.
        if not least <= value <= most or (above and value == least):
            raise ValueError(wanted)
        return value

    return convert


def choice(*allowed: str) -> Kind:
    """One of the given words, in any case."""

    def convert(text: str) -> str:
        for word in allowed:
            if word.lower() == text.lower():
                return word
        raise ValueError(f"write one of {', '.join(allowed)}")

    return convert


def model(text: str) -> str:
    """A model's name."""
    if not _MODEL.fullmatch(text):
        raise ValueError("write a model name such as gpt-4.1")
    return text


def models(text: str) -> tuple[str, ...]:
    """Model names separated by commas; empty for none."""
    return tuple(model(part.strip()) for part in text.split(",") if part.strip())


def named_models(text: str) -> dict[str, str]:
    """Model names separated by commas, each as `NAME` or as `NAME=NAME THERE`, what the upstream calls it."""
    names: dict[str, str] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, mark, there = (each.strip() for each in part.partition("="))
        if model(name) in names:
            raise ValueError(f"name {name} once")
        names[name] = model(there) if mark else name
    return names


def words(text: str) -> tuple[str, ...]:
    """Printable texts separated by commas."""
    return tuple(word(part.strip()) for part in text.split(",") if part.strip())


def routes(text: str) -> tuple[str, ...]:
    """Paths separated by commas, with a method before or a `*` behind where wanted: `GET /v1/batches*`."""
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for each in found:
        if not _ROUTE.fullmatch(each):
            raise ValueError("write paths such as /v1/conversations, /v1/vector_stores/* or GET /v1/batches*")
    return found


def optional_text(text: str) -> str:
    """A printable text, or none."""
    return word(text) if text else ""


def path(text: str) -> Path:
    """An absolute path."""
    value = Path(text)
    if not value.is_absolute() or "\0" in text:
        raise ValueError("write an absolute path")
    return value


def url(*schemes: str) -> Kind:
    """An address with one of the given schemes and a host; a trailing slash is dropped."""

    def convert(text: str) -> str:
        wanted = f"write an address that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}"
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ValueError(wanted) from None
        if parts.scheme not in schemes or not host or port == 0 or parts.query or parts.fragment:
            raise ValueError(wanted)
        return text.rstrip("/")

    return convert


def base_url(text: str) -> str:
    """Of an API: what its paths are put behind, and none of them."""
    address = str(url("https", "http")(text))
    for path in _API_PATHS:
        if address.endswith(path):
            raise ValueError(f"write it without {path}, which is added to it: {address.removesuffix(path)}")
    return address


def sha256(text: str) -> str:
    """The SHA-256 of a token, in hex."""
    if not _SHA256.fullmatch(text.lower()):
        raise ValueError("write the 64 hex digits that `printf %s TOKEN | sha256sum` prints, never the token")
    return text.lower()


def timezone(text: str) -> str:
    """A name of the time zone database."""
    # Imported here: the database costs time that only this value needs.
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # noqa: PLC0415

    if text != "UTC":
        try:
            ZoneInfo(text)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("write a time zone such as UTC or Europe/Berlin") from None
    return text


def endpoint(*schemes: str) -> Kind:
    """Where an engine is: `SCHEME://HOST:PORT`, and maybe `/N`, a database's number; no user and no password."""
    address = url(*schemes)
    wanted = f"write {' or '.join(f'{scheme}://HOST:PORT' for scheme in schemes)}, the port below 65536"

    def convert(text: str) -> object:
        if "@" in text:
            raise ValueError("write the address without user and password; these have keys of their own")
        try:
            found = str(address(text))
        except ValueError:
            raise ValueError(wanted) from None
        if not re.fullmatch(r"(/[0-9]{1,3})?", urlsplit(found).path):
            raise ValueError(f"{wanted}, and nothing behind it but a database's number, as in `/1`")
        return found

    return convert


def word(text: str) -> str:
    """Any text that is not empty and has no control character."""
    if not text or not text.isprintable():
        raise ValueError("write a printable text")
    return text


def optional(kind: Kind) -> Kind:
    """The given kind, or nothing where the value is empty: templates write `proxy_url =` for none."""

    def convert(text: str) -> object:
        return kind(text) if text else None

    return convert
