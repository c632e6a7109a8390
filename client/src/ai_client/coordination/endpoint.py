"""Where the engine is. Apart from the connection to it, whose library not every service needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


class EngineError(Exception):
    """The engine gave no answer that counts; the message names it, the reason and, where there is one, the remedy.

    `is_lasting`: it refuses, and goes on so until somebody changes its configuration or this host's.
    """

    def __init__(self, message: str, *, is_lasting: bool = False) -> None:
        super().__init__(message)
        self.is_lasting = is_lasting


class EngineFullError(EngineError):
    """The engine has no memory for what was to be added."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the engine is, and who asks. Its repr doesn't show the password."""

    url: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_path: Path | None = None
