"""The documentation as a site: every page is in it and can be found, every link leads somewhere, nothing is fetched."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.docs.pages import pages
from tests.infra.stacks import PROJECT
from tools.distribution.versions import version
from tools.pages import site, staged

pytestmark = pytest.mark.slow


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `tools/site` wrote one."""
    folder = tmp_path_factory.mktemp("site") / "out"
    done = subprocess.run(
        [PROJECT / "tools/site", "--out", folder], capture_output=True, text=True, check=False, timeout=300
    )
    assert (done.returncode, done.stdout) == (0, f"{folder / version(PROJECT)}\n"), done.stderr
    return folder


@pytest.fixture(scope="module")
def built(out: Path) -> Path:
    """The site of this version."""
    return out / version(PROJECT)


def test_two_builds_are_the_same_bytes(built: Path, tmp_path: Path) -> None:
    """Wherever they are made."""
    first, second = files(built), files(site.build(PROJECT, tmp_path))
    assert sorted(first) == sorted(second)
    assert [name for name, content in first.items() if second[name] != content] == []


def test_every_page_is_there_and_in_the_menu() -> None:
    """But for decisions, which a page of their own lists."""
    named = set(re.findall(r"[\w/.-]+\.md", (PROJECT / site.CONFIG).read_text()))
    places = {staged.place(page, root=PROJECT) for page in pages()}
    assert {place for place in places if not place.startswith("adr/")} - named == set()
    listed = staged.stage(PROJECT)
    assert named <= set(listed)
    assert all(f"]({Path(place).name})" in listed["adr/index.md"].decode() for place in places - named)


def test_search_finds_every_page_but_no_source(built: Path) -> None:
    """A word that stands on one page leads there."""
    entries = json.loads((built / "search.json").read_text())["items"]
    found = {entry["location"].partition("#")[0] for entry in entries}
    assert {"", "how-to/rotation/", "reference/metrics/", "adr/0030-leased-slots/", "CHANGELOG/"} <= found
    assert not any(place.startswith("source/") for place in found)
    holding = {entry["location"].partition("#")[0] for entry in entries if "ai_caching_enabled" in str(entry)}
    assert "reference/role-variables/" in holding


def test_a_page_fetches_nothing_from_elsewhere(built: Path) -> None:
    """Whoever reads it tells no third party so."""
    for page in built.rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|iframe)[^>]+src=\"([^\"]+)\"", page.read_text())
        loaded += re.findall(r"<link[^>]+href=\"([^\"]+)\"[^>]*>", page.read_text())
        assert [address for address in loaded if "//" in address] == [], page


def test_every_link_and_picture_leads_to_a_file(built: Path) -> None:
    """Checked on what is served, beside what the generator checks in the sources: anchors too."""
    texts = {page: page.read_text() for page in built.rglob("*.html") if page.name != "404.html"}
    anchors = {page: set(re.findall(r'\bid="([^"]+)"', text)) for page, text in texts.items()}
    for page, text in texts.items():
        for address in re.findall(r'(?:href|src)="([^"]*)"', text):
            path, _, anchor = address.partition("#")
            if "//" in address or address.startswith(("mailto:", "data:", "javascript:")):
                continue
            aim = (page.parent / path).resolve() if path else page
            aim = aim / "index.html" if aim.is_dir() else aim
            assert aim.is_file(), (page, address)
            assert not anchor or aim not in anchors or anchor in anchors[aim], (page, address)


def test_the_menu_of_versions_names_the_newest_first(tmp_path: Path) -> None:
    """Older ones stay; the top leads to the newest."""
    for name in ("0.9.0", "1.10.0", "1.9.0", "assets"):
        (tmp_path / name).mkdir()
    site._write_menu(tmp_path)
    listed = json.loads((tmp_path / "versions.json").read_text())
    assert [entry["version"] for entry in listed] == ["1.10.0", "1.9.0", "0.9.0"]
    assert [entry["aliases"] for entry in listed] == [["latest"], [], []]
    assert "url=1.10.0/" in (tmp_path / "index.html").read_text()
    shown = tomllib.loads((PROJECT / site.CONFIG).read_text())["project"]["extra"]["version"]
    assert shown["provider"] == "mike"


def project(root: Path, **written: str) -> Path:
    """A checkout with few pages."""
    (root / "docs").mkdir(parents=True)
    for name, text in {"README.md": "# Start\n", **written}.items():
        (root / name).write_text(text)
    return root


def test_all_links_to_nowhere_are_named_at_once(tmp_path: Path) -> None:
    """In the checkout's own words, not in the generator's; a link in a block of code is none."""
    broken = project(
        tmp_path,
        **{"docs/a.md": "# A\n[x](gone.md) [y](../out.py#z)\n```sh\n[z](none)\n```\n[r](../README.md)\n"},
    )
    with pytest.raises(staged.SiteError) as caught:
        staged.stage(broken)
    assert str(caught.value).splitlines() == [
        "docs/a.md: link to ../out.py: no such file; correct the link",
        "docs/a.md: link to gone.md: no such file; correct the link",
    ]


def test_a_link_to_a_heading_that_is_not_there_fails_the_build(tmp_path: Path) -> None:
    """Without a traceback; and what is linked outside docs/ becomes a page."""
    checkout = project(
        tmp_path / "checkout",
        **{"docs/a.md": "# A\n[x](../README.md#nothing) [y](../code.py)\n", "code.py": "x = 1\n"},
    )
    (checkout / site.CONFIG).write_text('[project]\nsite_name = "x"\ndocs_dir = "docs"\nsite_dir = "site"\n')
    (tmp_path / "work").mkdir()
    with pytest.raises(staged.SiteError) as caught:
        site.build(checkout, tmp_path / "work")
    assert "nothing" in str(caught.value)
    assert "a.md:2" in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert b"x = 1" in (tmp_path / "work/docs/source/code.py.md").read_bytes()
