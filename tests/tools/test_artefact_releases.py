"""Which builds hosts can be pinned to."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from tools.artefact import releases


def build(cache: Path, name: str, *, used_s: int) -> Path:
    """A build whose only tree is named by its folder."""
    folder = cache / "ai-client-fleet" / "artefacts" / name
    folder.mkdir(parents=True)
    tree = {"file": "t.tar.gz", "sha256": hashlib.sha256(name.encode()).hexdigest()}
    (folder / "index.json").write_text(json.dumps({"version": "1.0.0", "trees": {"cp311-x86_64": tree}}))
    os.utime(folder, (used_s, used_s))
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_builds_are_listed_with_their_digests_the_one_used_last_first(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a user pins by: the digest of an index, or of one tree."""
    old, new = build(cache, "old", used_s=86_400), build(cache, "new", used_s=10 * 86_400)
    (cache / "ai-client-fleet/artefacts/broken").mkdir()
    (cache / "ai-client-fleet/artefacts/broken/index.json").write_text("{")
    assert releases.main([]) == 0
    index = [hashlib.sha256((folder / "index.json").read_bytes()).hexdigest() for folder in (new, old)]
    tree = [hashlib.sha256(name).hexdigest() for name in (b"new", b"old")]
    assert capsys.readouterr().out.splitlines() == [
        f"{index[0]}  1.0.0  last used 1970-01-11",
        f"  {tree[0]}  cp311-x86_64",
        f"{index[1]}  1.0.0  last used 1970-01-02",
        f"  {tree[1]}  cp311-x86_64",
    ]


def test_a_build_is_found_by_its_index_and_by_its_tree_and_counts_as_used(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pinned build is not dropped as unused."""
    folder = build(cache, "old", used_s=86_400)
    index = hashlib.sha256((folder / "index.json").read_bytes()).hexdigest()
    assert releases.main([index, hashlib.sha256(b"old").hexdigest()]) == 0
    assert capsys.readouterr().out.splitlines() == [str(folder)] * 2
    assert folder.stat().st_mtime > 86_400


def test_an_unknown_digest_is_named(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 1, and nothing on standard output for it."""
    assert releases.main(["f" * 64]) == 1
    said = capsys.readouterr()
    assert (said.out, "f" * 64 in said.err) == ("", True)
