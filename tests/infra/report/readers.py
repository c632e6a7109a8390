"""Reads rendered texts as a browser would, to see where hostile text has ended up."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

_FENCE = re.compile(r" {0,3}(?P<fence>`{3,}|~{3,})")
VOID = {"meta", "br", "img"}


@dataclass
class Seen(HTMLParser):
    """Tags, attributes and comments of a text, and the text outside and inside of code."""

    tags: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    comments: list[str] = field(default_factory=list)
    outside: str = ""
    inside: str = ""
    open_tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open_tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag, f"{tag} closes nothing"

    def handle_data(self, data: str) -> None:
        if {"code", "pre"} & set(self.open_tags):
            self.inside += data
        else:
            self.outside += data

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)


def html(text: str) -> Seen:
    """What a page holds; every element is closed."""
    seen = Seen()
    seen.feed(text)
    seen.close()
    assert seen.open_tags == []
    return seen


def markdown(text: str) -> tuple[Seen, str]:
    """What a comment's HTML holds, and what is in its fenced blocks; every fence is closed, by CommonMark's rule."""
    outside: list[str] = []
    fenced: list[str] = []
    fence = ""
    for line in re.split(r"\r\n|\n|\r", text):
        if fence:
            closing = line.strip(" ")
            if (
                closing
                and set(closing) == {fence[0]}
                and len(closing) >= len(fence)
                and not line.startswith("    ")
            ):
                fence = ""
            else:
                fenced.append(line)
        elif match := _FENCE.match(line):
            fence = match["fence"]
        else:
            outside.append(line)
    assert not fence, "a fence is open at the end"
    return html("\n".join(outside)), "\n".join(fenced)
