"""The folder of builds, without building."""

import os
from pathlib import Path

import pytest

from tools.artefact import store
from tools.artefact.archive import pack
from tools.artefact.build import cache_folder
from tools.artefact.elf import check_machine, glibc_min
from tools.artefact.errors import ArtefactError
from tools.artefact.tags import Tag, parse_tag
from tools.artefact.tree import belongs, collect, trim_record

NOW_S = 1_800_000_000.0


def fill(stage: Path) -> None:
    (stage / "tree").write_bytes(b"12345")
    (stage / store.INDEX).write_text('{"inputs": "a", "trees": {"t": {"file": "tree", "size": 5}}}')


def test_only_builds_that_nobody_used_for_two_weeks_are_removed(tmp_path):
    """What is in use, and what is no build, stays."""
    for name, age_s in (("old", store.KEEP_UNUSED_S + 1), ("young", store.KEEP_UNUSED_S - 1)):
        store.ensure(tmp_path / name, inputs="a", fill=fill, say=print)
        os.utime(tmp_path / name, (NOW_S - age_s, NOW_S - age_s))
    (tmp_path / "not-a-build").mkdir()
    os.utime(tmp_path / "not-a-build", (0, 0))

    removed = store.drop_unused(tmp_path, now_s=NOW_S)

    assert removed == [tmp_path / "old"]
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["not-a-build", "young"]


def test_asking_for_a_build_counts_as_use(tmp_path):
    """A hit renews the folder's time, so that a build in daily use is never removed."""
    store.ensure(tmp_path / "build", inputs="a", fill=fill, say=print)
    os.utime(tmp_path / "build", (0, 0))

    store.ensure(tmp_path / "build", inputs="a", fill=fill, say=print)

    assert (tmp_path / "build").stat().st_mtime > 0


def test_a_build_that_fails_leaves_the_former_one_in_place(tmp_path):
    """The new build takes the old one's place only when it is whole."""

    def broken(stage: Path) -> None:
        (stage / "half").write_bytes(b"1")
        raise ArtefactError("the index is unreachable")

    store.ensure(tmp_path / "build", inputs="a", fill=fill, say=print)
    with pytest.raises(ArtefactError, match="unreachable"):
        store.ensure(tmp_path / "build", inputs="b", fill=broken, say=print)

    assert store.is_current(tmp_path / "build", inputs="a")
    assert not list(tmp_path.glob(".artefact-partial-*"))


@pytest.mark.parametrize("index", ["", "[]", "{", '{"inputs": "a", "trees": {"t": {}}}', '{"inputs": "a"}'])
def test_an_index_that_cannot_be_read_is_no_build(tmp_path, index):
    """A broken index means build again, never a crash."""
    (tmp_path / store.INDEX).write_text(index)
    assert not store.is_current(tmp_path, inputs="a")


def test_the_cache_follows_the_user_s_setting(monkeypatch):
    """XDG_CACHE_HOME where it is set, ~/.cache where not."""
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder({"XDG_CACHE_HOME": "/big/cache"}) == Path("/big/cache/ai-client-fleet/artefacts")
    assert cache_folder({}) == Path("/home/someone/.cache/ai-client-fleet/artefacts")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("aiohttp/client.py", True),
        ("uvicorn-0.54.0.dist-info/METADATA", True),
        ("uvloop/py.typed", True),
        ("tests/__init__.py", True),
        ("bin/httpx", False),
        (".lock", False),
        ("uvloop-0.23.0.dist-info/INSTALLER", False),
        ("x-1.dist-info/direct_url.json", False),
        ("certifi/tests/test_where.py", False),
        ("attr/__pycache__/a.cpython-311.pyc", False),
        ("uvloop/loop.pyx", False),
    ],
)
def test_a_tree_holds_what_runs_and_what_names_it(name, expected):
    """Marks of the installer, tests within packages and compilers' sources stay out."""
    assert belongs(name) is expected


def test_a_record_keeps_just_the_files_that_stay():
    """Rows of dropped files and of scripts outside go, the rest is sorted."""
    record = b"b.py,sha256=x,1\n../../bin/b,sha256=y,1\nb.pyx,sha256=z,2\na.py,sha256=w,3\n"
    assert trim_record(record) == b"a.py,sha256=w,3\nb.py,sha256=x,1\n"


def test_a_native_library_for_another_processor_is_refused():
    """A mislabelled wheel never reaches a host; the error names the library and the remedy."""
    elf = b"\x7fELF\x02\x01\x01" + bytes(11) + (183).to_bytes(2, "little")
    check_machine("lib/x.so", elf, tag=Tag(11, "aarch64"))
    with pytest.raises(ArtefactError, match=r"lib/x\.so in the tree cp311-x86_64 .* pin another version"):
        check_machine("lib/x.so", elf, tag=Tag(11, "x86_64"))


def test_the_least_c_library_is_the_newest_that_any_module_asks_for():
    """Versions compare as numbers, and names inside longer words do not count."""
    assert glibc_min([b"\0GLIBC_2.9\0GLIBC_2.2.5\0", b"\0GLIBC_2.17\0", b"xGLIBC_2.99\0"]) == "2.17"
    assert glibc_min([b"plain"]) is None


def test_a_client_file_never_covers_a_dependency(tmp_path):
    """Two owners of one name are an error that names it."""
    (tmp_path / "same.py").write_bytes(b"1")
    with pytest.raises(ArtefactError, match=r"same\.py of the client is also a dependency's"):
        collect(tmp_path, tag=Tag(11, "x86_64"), client={"same.py": b"2"})


def test_a_symbolic_link_among_the_wheels_is_refused(tmp_path):
    """A link could lead out of the tree."""
    (tmp_path / "away").symlink_to("/etc/passwd")
    with pytest.raises(ArtefactError, match="away in the tree cp311-x86_64 is a symbolic link"):
        collect(tmp_path, tag=Tag(11, "x86_64"), client={})


def test_the_order_in_which_files_are_given_does_not_matter():
    """Packing sorts."""
    assert pack({"a": b"1", "b/c": b"2"}) == pack({"b/c": b"2", "a": b"1"})


@pytest.mark.parametrize("text", ["cp311", "cp311-x86", "311-x86_64", "cp311-x86_64 ", "cp3-x86_64", ""])
def test_a_malformed_tag_is_refused(text):
    """The form is cp3<minor>-<machine>."""
    with pytest.raises(ArtefactError, match="such as cp311-x86_64"):
        parse_tag(text)


def test_a_build_that_is_there_waits_for_no_other_build(tmp_path):
    """Another checkout builds other inputs in the same cache meanwhile: nobody waits, nobody removes the other's."""

    def meanwhile(stage: Path) -> None:
        store.ensure(tmp_path / "second", inputs="a", fill=fill, say=said.append)
        store.ensure(tmp_path / "second", inputs="a", fill=fill, say=said.append)
        assert store.drop_unused(tmp_path, now_s=0) == []
        fill(stage)

    said: list[str] = []
    store.ensure(tmp_path / "first", inputs="a", fill=meanwhile, say=said.append)

    assert said == []
    assert all(store.is_current(tmp_path / name, inputs="a") for name in ("first", "second"))


def test_what_a_killed_build_left_goes_with_the_next_one_of_its_inputs_or_with_time(tmp_path):
    """A stage of the same build goes at once, one of another when it is old: it may be at work."""
    for name, age_s in (("build-x", 0), ("other-x", 0), ("other-y", store.KEEP_UNUSED_S + 1)):
        stage = tmp_path / f".artefact-partial-{name}"
        stage.mkdir()
        os.utime(stage, (NOW_S - age_s, NOW_S - age_s))
    store.ensure(tmp_path / "build", inputs="a", fill=fill, say=print)
    store.drop_unused(tmp_path, now_s=NOW_S)
    assert [path.name for path in tmp_path.glob(".artefact-partial-*")] == [".artefact-partial-other-x"]
