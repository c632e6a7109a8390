"""Where the upstream's key comes from: a file of its own or the environment, never the configuration file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

DEFAULT_KEY_PATH = Path("/etc/ai-client/key")
NEXT_SUFFIX = ".next"
KEY_VARIABLES = ("AI_CLIENT_API_KEY", "HOLYSHEEP_API_KEY")

_KEY = re.compile(r"hs_(?:live|test)_[A-Za-z0-9_-]{8,256}")


class KeyMissingError(Exception):
    """There is no usable key; the message says where one was looked for, and never shows any of it."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key and where it was found. Its repr shows neither key nor length."""

    secret: str = field(repr=False)
    source: str

    @property
    def fingerprint(self) -> str:
        """Names the key in logs and audit lines without telling it: 12 hex digits of its SHA-256."""
        return hashlib.sha256(self.secret.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class KeyPair:
    """The key in use and, while two overlap in a rotation, the one that follows it."""

    current: ApiKey
    following: ApiKey | None


def read_keys(*, key_file: Path | None, environment: Mapping[str, str]) -> KeyPair:
    """The key as `read_key` finds it, and the one in `FILE.next` beside a key file. Raises KeyMissingError."""
    current = read_key(key_file=key_file, environment=environment)
    if current.source in KEY_VARIABLES:
        return KeyPair(current, None)
    path = Path(current.source + NEXT_SUFFIX)
    return KeyPair(current, _from_file(path) if path.exists() else None)


def read_key(*, key_file: Path | None, environment: Mapping[str, str]) -> ApiKey:
    """The key from `key_file` where given, else the environment, else the default file.

    Raises KeyMissingError.
    """
    if key_file is not None:
        return _from_file(key_file)
    for variable in KEY_VARIABLES:
        text = environment.get(variable, "").strip()
        if text:
            return _checked(text, source=variable)
    return _from_file(DEFAULT_KEY_PATH)


def _from_file(path: Path) -> ApiKey:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError as exc:
        remedy = f"lay the key down there, name another file with --key-file, or set {KEY_VARIABLES[0]}"
        raise KeyMissingError(f"the key file {path} can't be read ({exc.strerror}); {remedy}") from exc
    except UnicodeDecodeError as exc:
        raise KeyMissingError(f"the key file {path} is not text; write the key alone into it") from exc
    return _checked(text, source=str(path))


def _checked(text: str, *, source: str) -> ApiKey:
    if not _KEY.fullmatch(text):
        wanted = "a key that begins with hs_live_ or hs_test_, alone, without quotes"
        raise KeyMissingError(f"{source} does not hold {wanted}; replace what it holds with one")
    return ApiKey(secret=text, source=source)
