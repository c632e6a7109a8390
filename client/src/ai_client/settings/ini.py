"""Reads the text of an INI file into entries that still know their line, so that every error can name it.

`configparser` forgets line numbers and stops at the first fault; an operator wants all faults at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from ai_client.errors import redact

COMMENT_MARKS = ("#", ";")


@dataclass(frozen=True, slots=True)
class Entry:
    """One `key = value` line."""

    section: str
    key: str
    value: str
    line: int


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a configuration: where it is, what is wrong, and what to do about it."""

    line: int | None
    section: str | None
    key: str | None
    reason: str
    remedy: str

    def describe(self, path: str) -> str:
        """`FILE:LINE: [section] key: reason; remedy`, leaving out what is not known."""
        where = path if self.line is None else f"{path}:{self.line}"
        name = " ".join(part for part in (self.section and f"[{self.section}]", self.key) if part)
        # A key that was pasted into a wrong place must not be shown by the error about that place.
        text = redact(f"{where}: {name + ': ' if name else ''}{self.reason}; {self.remedy}")
        # Nor may what stands in a file steer the terminal that it is told on.
        return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)


@dataclass(frozen=True, slots=True)
class Document:
    """The sections in file order, with the line of each, the entries, and what could not be read."""

    sections: dict[str, int]
    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...]


def parse(text: str) -> Document:
    """Read an INI text. Never raises: what is wrong is in `problems`."""
    sections: dict[str, int] = {}
    entries: list[Entry] = []
    problems: list[Problem] = []
    section: str | None = None
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith(COMMENT_MARKS):
            continue
        if line.startswith("["):
            section = _section_name(line)
            problem = _section_problem(section, number, sections)
            if problem is not None:
                problems.append(problem)
            if section is not None:
                sections.setdefault(section, number)
            continue
        key, mark, value = line.partition("=")
        if not mark or not key.strip():
            # The line is not shown: it may hold a key that was pasted in the wrong place.
            remedy = "write `key = value`, and begin a comment with # or ;"
            problems.append(Problem(number, section, None, "this line has no `key = value`", remedy))
        elif section is None:
            problems.append(
                Problem(number, None, key.strip(), "stands before any section", "put it under one")
            )
        else:
            entries.append(Entry(section, key.strip(), value.strip(), number))
    problems.extend(_duplicates(entries))
    return Document(sections, tuple(entries), tuple(problems))


def _section_name(line: str) -> str | None:
    if not line.endswith("]"):
        return None
    return " ".join(line[1:-1].split()) or None


def _section_problem(name: str | None, number: int, seen: dict[str, int]) -> Problem | None:
    if name is None:
        return Problem(number, None, None, "this section header is not closed or empty", "write `[section]`")
    if name in seen:
        return Problem(number, name, None, f"this section is already on line {seen[name]}", "join the two")
    return None


def _duplicates(entries: list[Entry]) -> list[Problem]:
    first: dict[tuple[str, str], int] = {}
    problems = []
    for entry in entries:
        name = (entry.section, entry.key)
        if name in first:
            reason = f"is already set on line {first[name]}"
            problems.append(Problem(entry.line, entry.section, entry.key, reason, "keep one of the two"))
        first.setdefault(name, entry.line)
    return problems
