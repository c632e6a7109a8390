"""A body that came as JSON: its text goes on as it was written, but for the members that are changed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ai_client.platform.json_text import write_json

# A longer one holds up others for too long while it is looked through: it goes on as we write it.
_LONGEST_LOOKED_THROUGH: Final = 1_000_000
_SPACE: Final = rb"[ \t\n\r]*"
_NAME: Final = re.compile(_SPACE + rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"' + _SPACE + b":" + _SPACE, re.DOTALL)
_COMMA: Final = re.compile(_SPACE + b",")
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class WrittenBody(dict[str, Any]):
    """A JSON object and its text. It is never changed in place: `{**body, …}` is a body without a text."""

    __slots__ = ("text",)

    def __init__(self, members: Mapping[str, Any], text: bytes) -> None:
        super().__init__(members)
        #: In UTF-8, with no member twice.
        self.text = text


def with_members(body: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The same with these members changed, or added at the end. Raises what `write_json` raises."""
    changed = {**body, **changes}
    if not isinstance(body, WrittenBody):
        return changed
    if not changes:
        return body
    is_new = body.keys().isdisjoint(changes)
    return WrittenBody(changed, (_appended if is_new else _spliced)(body.text, changes))


def encoded(body: Mapping[str, Any]) -> bytes:
    """The body as JSON. Raises what `write_json` raises."""
    return body.text if isinstance(body, WrittenBody) else write_json(body)


def written(body: dict[str, Any], text: bytes) -> dict[str, Any]:
    """`body` with `text`, which it was read from; without it where the text says something twice.

    Of two members of one name an upstream may take the other one, whose price or bound nobody here has looked at.
    """
    if text == write_json(body) or (
        len(text) <= _LONGEST_LOOKED_THROUGH and _members_written(text) == _members_of(body)
    ):
        return WrittenBody(body, text)
    return body


def _members_written(text: bytes) -> int:
    """How many members all objects of a JSON text have: outside of texts a colon stands nowhere else."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(text.split(b'"')[::2]).count(b":")


def _members_of(body: dict[str, Any]) -> int:
    """How many of them were kept: of those of one name in one object the last alone."""
    count, waiting = len(body), [*body.values()]
    while waiting:
        each = waiting.pop()
        if type(each) is dict:
            count += len(each)
            waiting += each.values()
        elif type(each) is list:
            waiting += each
    return count


def _appended(text: bytes, changes: Mapping[str, Any]) -> bytes:
    """With members that it does not have, behind its last one: wherever the brace is that closes the object."""
    end = text.rindex(b"}")
    before = text[:end].rstrip(b" \t\n\r")
    comma = b"" if before.endswith(b"{") else b","
    return b"".join((before, comma, write_json(changes)[1:-1], text[len(before) :]))


def _spliced(text: bytes, changes: Mapping[str, Any]) -> bytes:
    pieces: list[bytes] = []
    done, at, missing = 0, text.index(b"{") + 1, dict(changes)
    for name, value in _members(text).items():
        begun = _NAME.match(text, at)
        assert begun is not None  # noqa: S101 - the text was read as JSON, and no member stands twice
        start, end = begun.end(), begun.end() + len(bytes(value))
        if name in missing:
            pieces += (text[done:start], write_json(missing.pop(name)))
            done = end
        comma = _COMMA.match(text, end)
        at = end if comma is None else comma.end()
    text = b"".join((*pieces, text[done:]))
    return _appended(text, missing) if missing else text
