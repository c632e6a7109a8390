"""Where the upstream's key comes from: a file of its own or the environment, never the configuration file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ai_client.platform.given_file import read_given

DEFAULT_KEY_PATH = Path("/etc/ai-client/key")
NEXT_SUFFIX = ".next"
KEY_VARIABLES = ("AI_CLIENT_API_KEY", "HOLYSHEEP_API_KEY")

# Every provider has a form of its own; none has spaces, quotes or fewer characters.
_KEY = re.compile(r"[\x21\x23-\x26\x28-\x7e]{8,8192}")


class KeyMissingError(Exception):
    """There is no usable key; the message says where one was looked for, and never shows any of it.

    `is_absent` is true where no key was given at all, as opposed to one that can't be read or used.
    """

    def __init__(self, message: str, *, is_absent: bool = False) -> None:
        super().__init__(message)
        self.is_absent = is_absent


@dataclass(frozen=True, slots=True)
class LoadedKey:
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

    current: LoadedKey
    following: LoadedKey | None
    #: Those of the other upstreams, by name.
    others: Mapping[str, KeyPair] = field(default_factory=dict)


def read_keys(
    *,
    key_file: Path | None,
    environment: Mapping[str, str],
    prefixes: Sequence[str] = (),
    variables: Sequence[str] = KEY_VARIABLES,
    default: Path = DEFAULT_KEY_PATH,
) -> KeyPair:
    """The key as `read_key` finds it, and the one in `FILE.next` beside a key file. Raises KeyMissingError."""
    current = read_key(
        key_file=key_file, environment=environment, prefixes=prefixes, variables=variables, default=default
    )
    if current.source in variables:
        return KeyPair(current, None)
    path = Path(current.source + NEXT_SUFFIX)
    return KeyPair(current, _from_file(path, prefixes, variables) if _holds_text(path) else None)


def _holds_text(path: Path) -> bool:
    """Whether a file is there and more than blank: so is the unit's default of a credential that is not there."""
    try:
        return bool(read_given(path).strip())
    except FileNotFoundError:
        return False
    except OSError:
        return True


def read_key(
    *,
    key_file: Path | None,
    environment: Mapping[str, str],
    prefixes: Sequence[str] = (),
    variables: Sequence[str] = KEY_VARIABLES,
    default: Path = DEFAULT_KEY_PATH,
) -> LoadedKey:
    """The key from `key_file` where given, else of the environment's `variables`, else from the `default` file.

    `prefixes`: what it has to begin with, where that is declared. Raises KeyMissingError.
    """
    if key_file is not None:
        return _from_file(key_file, prefixes, variables)
    for variable in variables:
        text = environment.get(variable, "").strip()
        if text:
            return _checked(text, prefixes, source=variable)
    return _from_file(default, prefixes, variables)


def _from_file(path: Path, prefixes: Sequence[str], variables: Sequence[str]) -> LoadedKey:
    try:
        text = read_given(path).decode().strip()
    except OSError as exc:
        remedy = f"write the key there, name another file with --key-file, or set {variables[0]}"
        if variables is not KEY_VARIABLES:
            remedy = f"write the key there, name another file with key_file, or set {variables[0]}"
        text = f"the key file {path} can't be read ({exc.strerror}); {remedy}"
        raise KeyMissingError(text, is_absent=isinstance(exc, FileNotFoundError)) from exc
    except UnicodeDecodeError as exc:
        raise KeyMissingError(f"the key file {path} is not text; write only the key into it") from exc
    return _checked(text, prefixes, source=str(path))


def _checked(text: str, prefixes: Sequence[str], *, source: str) -> LoadedKey:
    if not _KEY.fullmatch(text) or (prefixes and not text.startswith(tuple(prefixes))):
        begins = f" that begins with {' or '.join(prefixes)}" if prefixes else ""
        wanted = f"a key{begins}, alone, without quotes"
        raise KeyMissingError(f"{source} does not hold {wanted}; replace what it holds with one")
    return LoadedKey(secret=text, source=source)
