"""A lock as uv writes it: exact versions with their hashes."""

import re
from dataclasses import dataclass

_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)", re.MULTILINE)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Pin:
    """One locked package, its name normalized (PEP 503), with the SHA-256 of every file that may be installed."""

    name: str
    version: str
    sha256s: tuple[str, ...]


def normalized(name: str) -> str:
    """A distribution's name as indexes compare it: `typing_extensions` is `typing-extensions`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(text: str) -> list[Pin]:
    """Every pin of a lock, whatever its environment marker says."""
    starts = list(_PIN.finditer(text))
    ends = [match.start() for match in starts[1:]] + [len(text)] * bool(starts)
    return [
        Pin(
            name=normalized(match["name"]),
            version=match["version"],
            sha256s=tuple(sorted(_HASH.findall(text, match.end(), end))),
        )
        for match, end in zip(starts, ends, strict=True)
    ]
