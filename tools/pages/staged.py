"""The pages of the site, from README.md and docs/: what they link to outside docs/ becomes a page as well."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

_LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
_FENCE = re.compile(r"^ *(`{3,}|~{3,})")
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
_LANGUAGES = {".py": "python", ".yml": "yaml", ".yaml": "yaml", ".json": "json"}
_NOT_FOUND_BY_SEARCH = "---\nsearch:\n  exclude: true\n---\n\n"
_START = "README.md"


class SiteError(Exception):
    """Pages that can't become a site: each line names one, the reason and the remedy."""


@dataclass
class Staged:
    """The files that the generator reads, while they are collected.

    Attributes:
        root: the checkout.
        files: content by path below the generator's folder.
        broken: a line for each link that leads nowhere.
    """

    root: Path
    files: dict[str, bytes] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


def stage(root: Path) -> dict[str, bytes]:
    """Content of each file of the site's sources. Raises SiteError naming every link that leads nowhere."""
    staged = Staged(root)
    left = [_START, *(path.relative_to(root).as_posix() for path in sorted((root / "docs").rglob("*.md")))]
    while left:
        name = left.pop()
        if place(name, root=root) not in staged.files:
            left += _add(staged, name)
    if staged.broken:
        raise SiteError("\n".join(sorted(staged.broken)))
    return staged.files


def place(name: str, *, root: Path) -> str:
    """Where a file or folder of the checkout is in the site's sources."""
    path = PurePosixPath(name)
    if (root / name).is_dir():
        path /= "index.md"
    elif path.name == _START:
        path = path.with_name("index.md")
    elif path.suffix not in {".md", ".png"}:
        # The generator overlooks names that begin with a dot.
        path = PurePosixPath("source", path.parent, f"{path.name.lstrip('.')}.md")
    return path.relative_to("docs").as_posix() if path.parts[0] == "docs" else path.as_posix()


def _add(staged: Staged, name: str) -> list[str]:
    """Adds a file or folder; returns what it links to."""
    path, links = staged.root / name, list[str]()
    if path.is_dir():
        content = _folder(staged, name, links)
    elif path.suffix == ".md":
        content = _page(staged, name, links)
    elif path.suffix == ".png":
        staged.files[place(name, root=staged.root)] = path.read_bytes()
        return []
    else:
        content = _source(name, path.read_text(encoding="utf-8"))
    staged.files[place(name, root=staged.root)] = content.encode()
    return links


def _page(staged: Staged, name: str, links: list[str]) -> str:
    """A page whose links lead to where things are in the site; what they lead to is added to `links`."""

    def moved(match: re.Match[str]) -> str:
        before, target, anchor, after = match.groups(default="")
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        aim = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        if aim.startswith("..") or not (staged.root / aim).exists():
            staged.broken.append(f"{name}: link to {target}: no such file; correct the link")
            return match[0]
        links.append(aim)
        return f"{before}{_relative(staged, name, aim)}{anchor}{after}"

    lines, fence = [], ""
    for line in (staged.root / name).read_text(encoding="utf-8").splitlines(keepends=True):
        mark = _FENCE.match(line)
        if mark:
            fence = "" if fence and mark[1].startswith(fence) else fence or mark[1]
        lines.append(line if fence or mark else _LINK.sub(moved, line))
    return "".join(lines)


def _folder(staged: Staged, name: str, links: list[str]) -> str:
    """A page that lists what is in a folder."""
    entries = sorted(path for path in (staged.root / name).iterdir() if path.name != "__pycache__")
    rows = []
    for entry in entries:
        aim = f"{name}/{entry.name}"
        links.append(aim)
        rows.append(f"- [{_title(entry)}]({_relative(staged, name, aim)})\n")
    return f"# {PurePosixPath(name).name}\n\n{''.join(rows)}"


def _title(path: Path) -> str:
    found = _TITLE.search(path.read_text(encoding="utf-8")) if path.suffix == ".md" else None
    return found[1] if found else path.name


def _source(name: str, text: str) -> str:
    """A file that is no page, as it is."""
    language = _LANGUAGES.get(PurePosixPath(name).suffix, "text")
    return f"{_NOT_FOUND_BY_SEARCH}# {name}\n\n~~~~~~ {language}\n{text.rstrip()}\n~~~~~~\n"


def _relative(staged: Staged, name: str, aim: str) -> str:
    """The way from one page of the site to another."""
    here = posixpath.dirname(place(name, root=staged.root))
    return posixpath.relpath(place(aim, root=staged.root), here or ".")
