"""The version of a release, which several files name: they must agree, and the changelog must tell of it."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tools.distribution.errors import ReleaseError

CHANGELOG = "CHANGELOG.md"
# Each file with the pattern of its line, the version in a group.
_PLACES = {
    "client/pyproject.toml": r'^version = "([^"]+)"$',
    "client/src/ai_client/__init__.py": r'^__version__ = "([^"]+)"$',
    "pyproject.toml": r'^version = "([^"]+)"$',
    "policy/PulumiPolicy.yaml": r"^version: (\S+)$",
    "ansible/galaxy.yml": r"^version: (\S+)$",
}
_HEADING = re.compile(r"^## (\S+) \((\d{4}-\d\d-\d\d|unreleased)\)$", re.MULTILINE)


def version(root: Path) -> str:
    """The one version that all files name. Raises ReleaseError naming those that don't."""
    wanted = str(tomllib.loads((root / "client/pyproject.toml").read_text())["project"]["version"])
    wrong = [f"{place} says {found}" for place, found in _found(root) if found != wanted]
    if wrong:
        raise ReleaseError(f"the version is {wanted} in client/pyproject.toml, but " + ", ".join(wrong))
    return wanted


def _found(root: Path) -> Iterator[tuple[str, str]]:
    for place, pattern in _PLACES.items():
        match = re.search(pattern, (root / place).read_text(encoding="utf-8"), re.MULTILINE)
        yield place, match[1] if match else "nothing"
    yield CHANGELOG, _newest(root)[0]


def _newest(root: Path) -> tuple[str, str, str]:
    """Version, date and text of the newest section."""
    text = (root / CHANGELOG).read_text(encoding="utf-8")
    match = _HEADING.search(text)
    if match is None:
        raise ReleaseError(f"{CHANGELOG} has no heading such as `## 1.0.0 (2026-12-01)`; add one on top")
    following = _HEADING.search(text, match.end())
    return match[1], match[2], text[match.end() : following.start() if following else len(text)].strip()


def notes(root: Path) -> str:
    """What the changelog says of the newest version."""
    name, date, text = _newest(root)
    return f"# ai-client-fleet {name} ({date})\n\n{text}\n"


def is_dated(root: Path) -> bool:
    """Whether the newest version has its day."""
    return _newest(root)[1] != "unreleased"
