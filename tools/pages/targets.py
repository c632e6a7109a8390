"""The targets of `make`, from the Makefile."""

from __future__ import annotations

import re
from pathlib import Path

from tools.pages import markdown

MAKEFILE = Path(__file__).resolve().parents[2] / "Makefile"

_INTRO = "Each target sets up what it needs first. Each is a line or two that can be typed by hand: see the Makefile."
_STAYS = """
`make down` leaves what makes the next `make up` quick: `~/.cache/ai-client-fleet` (engine, images, artefacts), Go's
own caches where the engine was built, the Debian packages that were installed, and backups of the stack's state in
`~/.local/state/ai-client-fleet`. `rm -r ~/.cache/ai-client-fleet` and `go clean -cache -modcache` free the space.
"""
_TARGET = re.compile(r"^([a-z][a-z-]*):(?:.*?)## (.+)$", re.MULTILINE)


def text() -> str:
    """The page."""
    found = _TARGET.findall(MAKEFILE.read_text(encoding="utf-8"))
    rows = [(f"`make {name}`", f"{about[0].upper()}{about[1:]}.") for name, about in found]
    return markdown.page("Make targets", _INTRO, markdown.table(("target", "what it does"), rows), _STAYS)
