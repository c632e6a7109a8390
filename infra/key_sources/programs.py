"""Keys that a program of the control machine prints: a command of one's own, `sops`, `age`.

The key goes through a pipe alone. What a command of one's own writes to standard error is thrown away, as it may hold
the key; `sops` and `age` say there what they could not decrypt.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Timer
from typing import IO

from infra.config.key_source import AgeSettings, CommandSettings, SopsSettings
from infra.key_sources.held import Held, Surroundings, Wanted, from_text

_Text = CommandSettings | SopsSettings | AgeSettings

_MOST_BYTES = 1 << 20
_TOOL_TIMEOUT_S = 60.0
_LONGEST_REASON = 300


def read_command(source: CommandSettings, wanted: Wanted, around: Surroundings) -> Held:
    """Runs the command and, where there is one, that for the next key; an empty answer of the latter is none.

    Raises:
        KeySourceError: a command failed, or printed no key.
    """
    run = _Run(wanted, around.project, source.timeout_s)
    held = _held(run.printed(source.argv), source, wanted, where=f"what {source.argv[0]} prints")
    text = run.printed(source.next_argv) if source.next_argv else ""
    if not text.strip():
        return held
    other = _held(text, source, wanted, where=f"what {source.next_argv[0]} prints as the next key")
    return held if other.key == held.key else Held(held.key, other.key)


def read_sops(source: SopsSettings, wanted: Wanted, around: Surroundings) -> Held:
    """Decrypts with `sops`, by whatever its file says and its environment can open.

    Raises:
        KeySourceError: it could not be decrypted, or holds no key.
    """
    _look_at(source.file, wanted, around)
    run = _Run(wanted, around.project, _TOOL_TIMEOUT_S, says_why=True)
    text = run.printed(("sops", "--decrypt", "--output-type", "json", source.file))
    return _held(text, source, wanted, where=source.file)


def read_age(source: AgeSettings, wanted: Wanted, around: Surroundings) -> Held:
    """Decrypts with `age` and an identity of the user's.

    Raises:
        KeySourceError: it could not be decrypted, or holds no key.
    """
    _look_at(source.file, wanted, around)
    run = _Run(wanted, around.project, _TOOL_TIMEOUT_S, says_why=True)
    identity = str(Path(source.identity_file).expanduser())
    text = run.printed(("age", "--decrypt", "--identity", identity, source.file))
    return _held(text, source, wanted, where=source.file)


def _held(text: str, source: _Text, wanted: Wanted, *, where: str) -> Held:
    return from_text(text, field=source.field, next_field=source.next_field, wanted=wanted, where=where)


def _look_at(file: str, wanted: Wanted, around: Surroundings) -> None:
    if not (around.project / file).is_file():
        raise wanted.error(f"{file} is not in the project folder", "write it, or correct the path")


@dataclass(frozen=True, slots=True)
class _Run:
    """How a program is run: in which folder, for how many seconds, and whether its last words may be shown."""

    wanted: Wanted
    folder: Path
    timeout_s: float
    says_why: bool = False

    def printed(self, argv: Sequence[str]) -> str:
        """Standard output of a program that ended well and in time."""
        with tempfile.TemporaryFile() as errors:
            output, status = self._output(argv, errors if self.says_why else subprocess.DEVNULL)
            told = _last_words(errors)
        name = argv[0]
        if len(output) > _MOST_BYTES:
            raise self.wanted.error(f"{name} prints more than a key", "make it print only the key")
        if status is None:
            remedy = "run it by hand and see what it waits for"
            raise self.wanted.error(f"{name} did not end within {self.timeout_s:g} seconds", remedy)
        if status != 0:
            reason = f"{name} ended with status {status}" + (f": {told}" if told else "")
            raise self.wanted.error(reason, "run it by hand in the project folder and see what it says")
        try:
            return output.decode()
        except UnicodeDecodeError:
            raise self.wanted.error(
                f"{name} prints something that is not text", "make it print only the key"
            ) from None

    def _output(self, argv: Sequence[str], errors: IO[bytes] | int) -> tuple[bytes, int | None]:
        """What it printed, and its status; None where it did not end in time."""
        is_late = Event()
        with self._started(argv, errors) as process:
            late = Timer(self.timeout_s, _end_late, (process, is_late))
            late.start()
            try:
                output = process.stdout.read(_MOST_BYTES + 1) if process.stdout else b""
                if len(output) > _MOST_BYTES:
                    _end(process)
                status = process.wait()
            finally:
                late.cancel()
        return output, None if is_late.is_set() else status

    @contextmanager
    def _started(self, argv: Sequence[str], errors: IO[bytes] | int) -> Iterator[subprocess.Popen[bytes]]:
        """A program in a session of its own, which ends with the block.

        It has no terminal: one that wants a passphrase says so at once, and does not wait where nobody is asked.
        """
        try:
            process = subprocess.Popen(
                argv,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            reason = f"{argv[0]} can't be started ({getattr(error, 'strerror', None) or error})"
            remedy = f"install {argv[0]} on the machine that runs Pulumi, or correct its path"
            raise self.wanted.error(reason, remedy) from error
        with process:
            try:
                yield process
            finally:
                _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a program and what it started, where it has not ended by itself."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def _end_late(process: subprocess.Popen[bytes], is_late: Event) -> None:
    is_late.set()
    _end(process)


def _last_words(errors: IO[bytes]) -> str:
    errors.seek(0)
    text = " ".join(errors.read(_MOST_BYTES).decode(errors="replace").split())
    return text[-_LONGEST_REASON:]
