"""What the input of a request is made of, beside its text: images, sound, and what it only refers to. Pure.

A part is read by its `type` and by its other members, since servers do either (vLLM goes by the members where there is
no type). Where two readings are possible the dearer one counts. Names are read without regard to case, as servers
written in Go read them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

IMAGE_MEMBERS: Final = frozenset(
    ("image_url", "input_image", "image", "image_file", "image_base64", "image_embeds")
)
_IMAGES: Final = IMAGE_MEMBERS
_FILES: Final = frozenset(
    (
        "file",
        "input_file",
        "document",
        "video_url",
        "video",
        "input_video",
        "item_reference",
        "container_upload",
    )
)
_FILE_MEMBERS: Final = _FILES - {"item_reference", "container_upload"}
_SOUNDS: Final = frozenset(("input_audio", "audio", "audio_url"))
#: What stands for something that the provider has, or fetches.
_ADDRESSES: Final = frozenset(
    ("file_id", "file_url", "file_uri", "fileuri", "uri", "asset_id", "cached_content")
)
_TELLING: Final = IMAGE_MEMBERS | _FILE_MEMBERS | _SOUNDS | _ADDRESSES
_REFERENCES: Final = (
    "previous_response_id",
    "conversation",
    "thread_id",
    "file_ids",
    "vector_store_ids",
    "cached_content",
    "cachedcontent",
)
_TEXT_KINDS: Final = frozenset(
    kind
    for kinds in (
        "text input_text output_text refusal thinking redacted_thinking reasoning reasoning_text summary_text",
        "message function_call function_call_output custom_tool_call custom_tool_call_output local_shell_call",
        "local_shell_call_output tool_use tool_result tool_call search_result",
    )
    for kind in kinds.split()
)
# A kind that is a list, an object or a number: as little known as a word that nobody knows.
_NO_WORD: Final = "type"
#: Members of a body that hold what a model reads.
_READ: Final = (
    "messages",
    "input",
    "inputs",
    "system",
    "prompt",
    "documents",
    "query",
    "contents",
    "instructions",
)


@dataclass(slots=True)
class InputParts:
    """What the parts of a request come to."""

    images: int = 0
    #: Of images that are sent along; they are counted as images.
    image_bytes: int = 0
    #: Sound that is sent along.
    sounds: int = 0
    #: The first part that refers to something that is not here.
    reference: str = ""
    #: A cache is written that the provider keeps for an hour.
    caches_long: bool = False
    pending: list[Any] = field(default_factory=list)


def folded(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same with its names in small letters; of several that are then one, the last."""
    if all(name.islower() for name in value):
        return value
    return {name.casefold(): each for name, each in value.items()}


def read_input(body: Mapping[str, Any]) -> InputParts:
    """Of a body whose names are folded."""
    found = InputParts()
    for name in _REFERENCES:
        if body.get(name):
            found.reference = name
    found.pending += [body[name] for name in _READ if isinstance(body.get(name), list | Mapping)]
    _note_cache(body, found)
    tools = body.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, Mapping):
            _note_cache(folded(tool), found)
    while found.pending:
        _read_part(found.pending.pop(), found)
    return found


def _read_part(value: Any, found: InputParts) -> None:
    if isinstance(value, list):
        found.pending += [each for each in value if not isinstance(each, str)]
        return
    if not isinstance(value, Mapping):
        return
    part = folded(value)
    _note_cache(part, found)
    kind = part.get("type")
    if kind is not None and not isinstance(kind, str):
        kind = _NO_WORD
    told = (
        () if _TELLING.isdisjoint(part) else tuple(name for name in part if name in _TELLING and part[name])
    )
    if kind in _IMAGES or not IMAGE_MEMBERS.isdisjoint(told):
        _read_images(part, found)
        told = tuple(name for name in told if name not in _ADDRESSES)  # an image by its id is an image
    if kind in _SOUNDS or (kind not in _IMAGES and not _SOUNDS.isdisjoint(told)):
        _read_sound(part, str(kind if kind in _SOUNDS else "audio"), found)
    if kind in _FILES or not _FILE_MEMBERS.isdisjoint(told):
        if not _is_plain_text(part):
            found.reference = str(kind if kind in _FILES else next(iter(_FILE_MEMBERS & set(told))))
    elif not _ADDRESSES.isdisjoint(told):
        found.reference = next(iter(_ADDRESSES & set(told)))
    elif kind is not None and kind not in _TEXT_KINDS | _IMAGES | _SOUNDS:
        found.reference = str(kind)
    else:
        found.pending += [
            part[name]
            for name in ("content", "output", "parts")
            if isinstance(part.get(name), list | Mapping)
        ]


def _note_cache(part: Mapping[str, Any], found: InputParts) -> None:
    control = part.get("cache_control")
    if isinstance(control, Mapping) and control.get("ttl") not in (None, "5m"):
        found.caches_long = True


def _read_images(part: Mapping[str, Any], found: InputParts) -> None:
    """As many as it may be read as holding: a member each, and each of a list."""
    members = [part[name] for name in IMAGE_MEMBERS if part.get(name)]
    found.images += max(1, sum(len(each) if isinstance(each, list) else 1 for each in members))
    url, source = part.get("image_url"), part.get("source")
    if isinstance(url, Mapping):
        url = url.get("url")
    if isinstance(url, str) and url.startswith("data:"):
        if url.startswith("data:image/"):
            # Of its own data alone, so that no text beside it goes uncounted.
            found.image_bytes += len(url)
        else:
            found.reference = "image_url"
    if isinstance(source, Mapping) and source.get("type") == "base64":
        data, kind = source.get("data"), source.get("media_type", "image/")
        if not isinstance(kind, str) or not kind.startswith("image/"):
            found.reference = "image"
        elif isinstance(data, str):
            found.image_bytes += len(data)


def _read_sound(part: Mapping[str, Any], kind: str, found: InputParts) -> None:
    """Sound that is sent along is bounded by its bytes; an address or an id is not."""
    found.sounds += 1
    texts = list(_texts({name: each for name, each in part.items() if name != "type"}, 3))
    is_here = any(len(text) > 64 for text in texts)
    if not is_here or any("://" in text for text in texts) or not _ADDRESSES.isdisjoint(part):
        found.reference = kind


def _texts(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping) and depth:
        for each in value.values():
            yield from _texts(each, depth - 1)


def _is_plain_text(part: Mapping[str, Any]) -> bool:
    """A file whose text is sent along as it is, so that its bytes bound it."""
    inner = part.get("file", part)
    places = [folded(each) for each in (part, inner, part.get("source")) if isinstance(each, Mapping)]
    if any(place.get(name) for place in places for name in (*_ADDRESSES, "url")):
        return False
    source = part.get("source")
    if isinstance(source, Mapping):
        return source.get("type") == "text"
    data = inner.get("file_data") if isinstance(inner, Mapping) else None
    return isinstance(data, str) and data.startswith("data:text/")
