"""The audit trail's form, and the check that nothing in it was removed or changed.

Each line is a JSON object that ends with the hash of itself and of the line before it; each day's file begins with a
line that repeats the last hash of the file before. A line that is changed, removed or put in breaks the chain at that
place, a missing file breaks it between its neighbours, and lines cut off the end are missed by `audit.head`, which
says how far the chain goes. It does not stop somebody who may write all of these files from making a new chain: ship
the lines elsewhere for that (docs/reference).
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct, structs

from ai_client.events import Failed, Settled

HEAD_NAME: Final = "audit.head"
#: What the first line of the first file is chained to.
NO_HASH: Final = "0" * 32
_FILE_NAME: Final = re.compile(r"audit-\d{4}-\d\d-\d\d\.jsonl")
_HASH_TAIL: Final = re.compile(rb',"hash":"([0-9a-f]{32})"\}')
_HASH_TAIL_BYTES: Final = len(b',"hash":""}') + 32

_NO_TAGS: Final[dict[str, str]] = {}

_encode = msgspec.json.Encoder().encode


class Head(NamedTuple):
    """How far the chain goes: its last line, and the size of that line's file."""

    seq: int
    hash: str
    file: str
    size: int


EMPTY_HEAD: Final = Head(0, NO_HASH, "", 0)


def file_name(at_s: float) -> str:
    """The file of a moment: one a day, in UTC."""
    return f"audit-{datetime.fromtimestamp(at_s, UTC).date().isoformat()}.jsonl"


def files_of(folder: Path) -> list[Path]:
    """The trail's files in a folder, oldest first."""
    return sorted(path for path in folder.iterdir() if _FILE_NAME.fullmatch(path.name))


def files_before(folder: Path, name: str) -> list[Path]:
    """The trail's files of days before that of `name`."""
    return [path for path in files_of(folder) if path.name < name]


class _CallLine(Struct):
    """What the trail keeps of a call: who, which model, tokens, cost, status, latency, key; never the text."""

    at: str
    kind: str
    request_id: str
    tenant: str
    endpoint: str
    model: str
    asked_model: str
    status: int | None
    error: str
    input_tokens: int | None
    output_tokens: int | None
    cached_input_tokens: int | None
    cost_usd: float | None
    billed_unknown: bool
    cached: bool
    stream: bool
    attempts: int
    latency_ms: float
    key: str
    tags: dict[str, str]


class CallTexts:
    """Makes the text of a call's line. It remembers the last second as text: most calls share it."""

    __slots__ = ("_second", "_second_text")

    def __init__(self) -> None:
        self._second = -1
        self._second_text = ""

    def of(self, event: Settled | Failed) -> bytes:
        """The line, still without its number and hash."""
        usage, cost_usd, cached, error, billed_unknown = None, None, False, "", False
        if isinstance(event, Settled):
            usage, cost_usd, cached = event.usage, event.cost_usd, event.cached
        else:
            error, billed_unknown = event.error, event.billed_unknown
        line = _CallLine(
            self._time(event.at),
            "call",
            event.request_id,
            event.tenant,
            event.endpoint,
            event.model,
            event.asked_model,
            event.status,
            error,
            None if usage is None else usage.input_tokens,
            None if usage is None else usage.output_tokens,
            None if usage is None else usage.cached_input_tokens,
            cost_usd,
            billed_unknown,
            cached,
            event.stream,
            event.attempts,
            round(event.latency_s * 1_000, 1),
            event.key_fingerprint,
            dict(event.cost_tags) if event.cost_tags else _NO_TAGS,
        )
        try:
            return _encode(line)
        except UnicodeEncodeError:
            # Half an emoji in a name that a caller has chosen.
            return text_of(structs.asdict(line))

    def _time(self, at_s: float) -> str:
        second, milliseconds = divmod(round(at_s * 1_000), 1_000)
        if second != self._second:
            self._second = second
            self._second_text = datetime.fromtimestamp(second, UTC).isoformat()[:19]
        return f"{self._second_text}.{milliseconds:03}+00:00"


def text_of(facts: dict[str, object]) -> bytes:
    """Facts as JSON, still without their number and hash."""
    return json.dumps(facts, separators=(",", ":")).encode()


def chained(facts: bytes, *, seq: int, previous: str) -> tuple[bytes, str]:
    """A line with its newline, and its hash."""
    text = b'{"seq":%d,%b' % (seq, facts[1:])
    digest = _hash(previous, text)
    return b'%b,"hash":"%b"}\n' % (text[:-1], digest.encode()), digest


def parse_head(content: bytes) -> Head | None:
    """The head as it was written; None where it makes no sense."""
    parts = content.decode("ascii", "replace").split()
    if len(parts) != len(Head._fields) or not (parts[0].isdecimal() and parts[3].isdecimal()):
        return None
    return Head(int(parts[0]), parts[1], parts[2].removeprefix("-"), int(parts[3]))


def format_head(head: Head) -> bytes:
    """Always as long, so that it is written over in one go."""
    return f"{head.seq:<20} {head.hash} {head.file or '-':<24} {head.size:<20}\n".encode()


@dataclass(frozen=True, slots=True)
class Problem:
    """A place where the trail is not what was written. `line` 0 is the file as a whole."""

    file: str
    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The trail from its oldest file on. Lines older than that are gone by retention, or by somebody's hand."""

    first_file: str
    lines: int
    problems: tuple[Problem, ...]


def verify(folder: Path) -> AuditReport:
    """Reads the whole trail in `folder`. Raises OSError where it can't be read."""
    files = files_of(folder)
    check = _Check()
    for path in files:
        check.file(path)
    check.end(folder / HEAD_NAME)
    return AuditReport(files[0].name if files else "", check.lines, tuple(check.problems))


class _Check:
    """Follows the chain. After a break it goes on from what the line itself says, so each break is told once."""

    def __init__(self) -> None:
        self.lines = 0
        self.problems: list[Problem] = []
        self._seq: int | None = None
        self._hash = NO_HASH

    def file(self, path: Path) -> None:
        """One day's lines."""
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                reason = self._line(line, is_first=number == 1)
                if reason:
                    self.problems.append(Problem(path.name, number, reason))

    def end(self, head_path: Path) -> None:
        """Compares the last line with the head."""
        head = parse_head(head_path.read_bytes()) if head_path.exists() else None
        if head is None:
            if self.lines:
                self.problems.append(Problem(HEAD_NAME, 0, "is missing or unreadable"))
        elif (self._seq or 0) < head.seq:
            missing = head.seq - (self._seq or 0)
            self.problems.append(Problem(head.file, 0, f"{missing} lines are missing at its end"))

    def _line(self, line: bytes, *, is_first: bool) -> str:
        parsed = _parse(line)
        if parsed is None:
            return "is not a line of the trail"
        self.lines += 1
        seq, text, digest, previous = parsed
        reason = ""
        if is_first:
            if previous is None:
                reason = "the file does not begin with its first line"
            elif self._seq is None:
                self._hash = previous
            elif previous != self._hash:
                reason = "does not follow the file before: lines or a whole file are missing"
        if not reason and self._seq is not None and seq != self._seq + 1:
            reason = f"follows line {self._seq} of the trail but is {seq}: lines are missing or were put in"
        if not reason and digest != _hash(self._hash if previous is None else previous, text):
            reason = "was changed, or the one before it was"
        self._seq, self._hash = seq, digest
        return reason


def _parse(line: bytes) -> tuple[int, bytes, str, str | None] | None:
    """Number, hashed text, hash, and the hash that a file's first line repeats."""
    tail = _HASH_TAIL.fullmatch(line.rstrip(b"\n")[-_HASH_TAIL_BYTES:])
    if tail is None:
        return None
    text = line.rstrip(b"\n")[:-_HASH_TAIL_BYTES] + b"}"
    try:
        facts = json.loads(text)
        return int(facts["seq"]), text, tail[1].decode(), facts.get("previous")
    except (ValueError, LookupError, TypeError):
        return None


def whole_lines(content: bytes) -> Iterator[tuple[int, str, int]]:
    """Number, hash and end offset of each line up to the first that is not one of the trail."""
    offset = 0
    for line in content.splitlines(keepends=True):
        parsed = _parse(line) if line.endswith(b"\n") else None
        if parsed is None:
            return
        offset += len(line)
        yield parsed[0], parsed[2], offset


def _hash(previous: str, text: bytes) -> str:
    return hashlib.sha256(previous.encode() + text).hexdigest()[:32]
