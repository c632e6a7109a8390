"""The audit trail's form, and the check that nothing in it was removed or changed.

Each line is a JSON object that ends with the hash of itself and of the line before it. Each day's file begins with a
line that repeats the last hash of the file before, and names that file; files that retention removed are named by a
line. So a line that is changed, removed or put in breaks the chain at that place, a missing file breaks it between its
neighbours, and `audit.head`, which says how far the chain goes and with which hash, shows lines that were cut off, put
behind the end, or hashed anew. Somebody who may write all of these files can make a new chain: an `Anchor`, a line's
number and hash that were kept elsewhere, finds that for all lines up to it.
"""

import errno
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct, structs

from ai_client.contract.events import Failed, Settled

HEAD_NAME: Final = "audit.head"
#: What the first line of the first file is chained to.
NO_HASH: Final = "0" * 32
_FILE_NAME: Final = re.compile(r"audit-\d{4}-\d\d-\d\d\.jsonl")
_HEAD: Final = re.compile(
    rb"\s*(\d{1,18})\s+([0-9a-f]{32})\s+(-|audit-\d{4}-\d\d-\d\d\.jsonl)\s+(\d{1,18})\s*"
)
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


class Anchor(NamedTuple):
    """A line's number and hash, kept where whoever may write the trail can't change them."""

    seq: int
    hash: str


_ANCHOR: Final = re.compile(r"(\d{1,18}):([0-9a-f]{32})")


def parse_anchor(text: str) -> Anchor:
    """From `SEQ:HASH`, or a JSON log line with the members `seq` and `hash`. Raises ValueError."""
    found = _ANCHOR.fullmatch(text.strip())
    if found is not None:
        return Anchor(int(found[1]), found[2])
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        facts = None
    if isinstance(facts, dict) and (found := _ANCHOR.fullmatch(f"{facts.get('seq')}:{facts.get('hash')}")):
        return Anchor(int(found[1]), found[2])
    raise ValueError(f"'{text.strip()[:60]}' is neither SEQ:HASH nor a log line with seq and hash")


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
    parts = _HEAD.fullmatch(content)
    if parts is None:
        return None
    seq, digest, file, size = (part.decode() for part in parts.groups())
    return Head(int(seq), digest, file.removeprefix("-"), int(size))


def format_head(head: Head) -> bytes:
    """Always as long, so that it is written over in one go."""
    return f"{head.seq:<20} {head.hash} {head.file or '-':<24} {head.size:<20}\n".encode()


@dataclass(frozen=True, slots=True)
class TrailFault:
    """A place where the trail is not what was written. `line` 0 is the file as a whole."""

    file: str
    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The trail from its oldest file on. Lines older than that are gone by retention, or by somebody's hand."""

    first_file: str
    lines: int
    problems: tuple[TrailFault, ...]


def verify(folder: Path, anchors: Iterable[Anchor] = ()) -> AuditReport:
    """Reads the whole trail in `folder`. Raises OSError where it can't be read, FileNotFoundError where there is none.

    It may be written meanwhile: the head is read before and after.
    """
    head_before = _read_head(folder)
    files = files_of(folder)
    if not files and head_before is None:
        raise FileNotFoundError(errno.ENOENT, "there is no audit trail", str(folder))
    wanted = [*anchors, *([Anchor(head_before.seq, head_before.hash)] if head_before is not None else [])]
    check = _Check({anchor.seq for anchor in wanted})
    for path in files:
        check.file(path)
    check.retention(files)
    check.end(head_before, _read_head(folder))
    check.anchors(wanted[: len(wanted) - (head_before is not None)])
    return AuditReport(files[0].name if files else "", check.lines, tuple(check.problems))


def _read_head(folder: Path) -> Head | None:
    try:
        return parse_head((folder / HEAD_NAME).read_bytes())
    except FileNotFoundError:
        return None


class _Check:
    """Follows the chain. After a break it goes on from what the line itself says, so each break is told once."""

    def __init__(self, wanted: set[int]) -> None:
        self.lines = 0
        self.problems: list[TrailFault] = []
        self._seq: int | None = None
        self._first_seq: int | None = None
        self._hash = NO_HASH
        self._wanted = wanted
        #: The hashes of the lines that are wanted.
        self._found: dict[int, str] = {}
        #: From the first line of the oldest file.
        self._file_before: str | None = None
        #: Files older than this were removed by retention, as the trail itself says.
        self._retired_before = ""

    def file(self, path: Path) -> None:
        """One day's lines."""
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                reason = self._line(line, is_first=number == 1)
                if reason:
                    self.problems.append(TrailFault(path.name, number, reason))

    def retention(self, files: Sequence[Path]) -> None:
        """Whether what is gone at the beginning is what retention took."""
        before = self._file_before
        if before and before >= (self._retired_before or before):
            reason = f"{before}, which came before it, is missing, and retention did not remove it"
            self.problems.append(TrailFault(files[0].name, 1, reason))

    def end(self, before: Head | None, after: Head | None) -> None:
        """Compares the lines with the head: as it was when they began to be read, and when they had been."""
        last = self._seq or 0
        if before is None or after is None:
            if self.lines:
                self.problems.append(TrailFault(HEAD_NAME, 0, "is missing or unreadable"))
            return
        if last < before.seq:
            reason = f"{before.seq - last} lines are missing at its end"
            self.problems.append(TrailFault(before.file, 0, reason))
        elif before.seq and self._found.get(before.seq) not in {None, before.hash}:
            reason = f"line {before.seq} of the trail is not the one that {HEAD_NAME} names: lines were written anew"
            self.problems.append(TrailFault(before.file, 0, reason))
        if last > after.seq:
            reason = (
                f"{last - after.seq} lines are behind the end that {HEAD_NAME} names: put in, or written by a process "
                "that was killed, which the service's next start settles"
            )
            self.problems.append(TrailFault(after.file, 0, reason))

    def anchors(self, anchors: Iterable[Anchor]) -> None:
        """Compares the lines with what was kept elsewhere."""
        for anchor in anchors:
            found = self._found.get(anchor.seq)
            if found is None and self._first_seq is not None and anchor.seq < self._first_seq:
                continue  # retention took it, or `retention` says that it did not
            if found != anchor.hash:
                reason = "is missing" if found is None else "or one before it was written anew"
                self.problems.append(
                    TrailFault("anchor", anchor.seq, f"line {anchor.seq} of the trail {reason}")
                )

    def _line(self, line: bytes, *, is_first: bool) -> str:
        parsed = _parse(line)
        if parsed is None:
            return "is not a line of the trail"
        self.lines += 1
        seq, text, digest, facts = parsed
        previous = facts.get("previous")
        if self._first_seq is None:
            self._first_seq = seq
            self._file_before = facts.get("file_before") if seq > 1 else None
        if facts.get("kind") == "retired":
            self._retired_before = max(self._retired_before, str(facts.get("before", "")))
        reason = self._break(seq, text, digest, previous=previous, is_first=is_first)
        self._seq, self._hash = seq, digest
        if seq in self._wanted:
            self._found[seq] = digest
        return reason

    def _break(self, seq: int, text: bytes, digest: str, *, previous: str | None, is_first: bool) -> str:
        """Why a line does not follow the one before it; "" where it does."""
        if is_first:
            if previous is None:
                return "the file does not begin with its first line"
            if self._seq is None:
                self._hash = previous
            elif previous != self._hash:
                return "does not follow the file before: lines or a whole file are missing"
        if self._seq is not None and seq != self._seq + 1:
            return f"follows line {self._seq} of the trail but is {seq}: lines are missing or were put in"
        if digest != _hash(self._hash if previous is None else previous, text):
            return "was changed, or the one before it was"
        return ""


def _parse(line: bytes) -> tuple[int, bytes, str, dict[str, Any]] | None:
    """Number, hashed text, hash, and what the line says; of a file's first line, the hash that it repeats too."""
    tail = _HASH_TAIL.fullmatch(line.rstrip(b"\n")[-_HASH_TAIL_BYTES:])
    if tail is None:
        return None
    text = line.rstrip(b"\n")[:-_HASH_TAIL_BYTES] + b"}"
    try:
        facts = json.loads(text)
        return int(facts["seq"]), text, tail[1].decode(), facts
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
