"""Bodies that are forms (`multipart/form-data`): what is read of them, and another model put in. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from msgspec import Struct

from ai_client.errors import BadRequestError

FORM_TYPE: Final = "multipart/form-data"
# A field that is longer than this is no setting: only its size is kept.
_LONGEST_FIELD_BYTES: Final = 256 * 1024
_MOST_PARTS: Final = 128
_BOUNDARY: Final = re.compile(r"""boundary=(?:"([^"]{1,200})"|([^\s;"]{1,200}))""", re.IGNORECASE)


class Part(Struct):
    """One part: its header lines as they came, and its bytes."""

    name: str
    filename: str | None
    headers: list[tuple[str, str]]
    content: bytes


def is_form(content_type: str) -> bool:
    """Whether a content type says that the body is a form."""
    return content_type.partition(";")[0].strip().lower() == FORM_TYPE


def parts_of(content: bytes, content_type: str) -> list[Part]:
    """The parts in their order. Raises BadRequestError where it is no form, ends early or has a field twice."""
    from multipart import MultipartError  # noqa: PLC0415 - only those who send forms need it

    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        raise BadRequestError("request body", "is a form whose content type names no boundary")
    try:
        parts = list(_parsed(content, boundary[1] or boundary[2]))
    except (MultipartError, UnicodeDecodeError, ValueError) as error:
        raise BadRequestError("request body", f"is no whole form: {error}") from error
    seen: set[str] = set()
    for part in parts:
        if part.name in seen and part.filename is None and not part.name.endswith("[]"):
            raise BadRequestError(
                "request body", f"has the field {part.name} twice", param=part.name, remedy="Send it once."
            )
        seen.add(part.name)
    return parts


def fields_of(parts: list[Part]) -> dict[str, Any]:
    """The fields as a body in JSON would have them: texts; of files their sizes in bytes, summed up by name."""
    fields: dict[str, Any] = {}
    for part in parts:
        if part.filename is None and len(part.content) <= _LONGEST_FIELD_BYTES:
            fields[part.name] = part.content.decode("utf-8", "replace")
        else:
            known = fields.get(part.name)
            fields[part.name] = (known if isinstance(known, int) else 0) + len(part.content)
    return fields


def with_model(content: bytes, content_type: str, *, model: str) -> bytes:
    """The same body for another model; as it is where it is no form, or asks for that model already."""
    if not model or not is_form(content_type):
        return content
    parts = parts_of(content, content_type)
    if any(part.name == "model" and part.content == model.encode() for part in parts):
        return content
    kept = [part for part in parts if part.name != "model"]
    disposition = ("Content-Disposition", 'form-data; name="model"')
    return write_form(
        [Part("model", None, [disposition], model.encode()), *kept], boundary=_boundary(content_type)
    )


def without_field(content: bytes, content_type: str, *, name: str) -> bytes:
    """The same body without the field `name`; as it is where it is no form, or has none."""
    if not is_form(content_type):
        return content
    parts = parts_of(content, content_type)
    kept = [part for part in parts if part.name != name]
    return content if len(kept) == len(parts) else write_form(kept, boundary=_boundary(content_type))


def _boundary(content_type: str) -> str:
    found = _BOUNDARY.search(content_type)
    return "" if found is None else found[1] or found[2]


def write_form(parts: list[Part], *, boundary: str) -> bytes:
    """A body of these parts."""
    pieces: list[bytes] = []
    for part in parts:
        lines = "".join(f"{name}: {value}\r\n" for name, value in part.headers)
        pieces += [f"--{boundary}\r\n{lines}\r\n".encode(), part.content, b"\r\n"]
    pieces.append(f"--{boundary}--\r\n".encode())
    return b"".join(pieces)


def _parsed(content: bytes, boundary: str) -> Iterator[Part]:
    from multipart import MultipartSegment, PushMultipartParser  # noqa: PLC0415 - see above

    with PushMultipartParser(
        boundary, content_length=len(content), max_segment_count=_MOST_PARTS, strict=True
    ) as parser:
        part = None
        for event in parser.parse(content):
            if isinstance(event, MultipartSegment):
                part = Part(event.name or "", event.filename, list(event.headerlist), b"")
            elif event is not None and part is not None:
                part.content += bytes(event)
            elif part is not None:
                yield part
                part = None
