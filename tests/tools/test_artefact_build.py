"""The builder as users run it: a program that prints a folder."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from tests.tools.artefact_checkout import BUILD_TIMEOUT_S, ROOT, VERSION, Checkout, copy_checkout

pytestmark = pytest.mark.slow

TAG = "cp311-x86_64"
OTHER_TAG = "cp313-aarch64"


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return copy_checkout(ROOT, tmp_path / "checkout")


def read_index(printed: str) -> dict:
    return json.loads((Path(printed.strip()) / "index.json").read_text())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BUILD_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        Event().wait(0.005)


def test_two_checkouts_with_other_times_and_umasks_give_the_same_digests(tmp_path):
    """A tree depends on its sources and lock alone: not on the path, file times, umask or cache."""
    one = copy_checkout(ROOT, tmp_path / "one")
    two = copy_checkout(one.root, tmp_path / "elsewhere" / "deeper" / "two")
    for path in (two.root / "client").rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700 if path.is_dir() else 0o600)

    first, second = (
        one.build("--tag", TAG, OTHER_TAG, umask=0o022),
        two.build("-t", TAG, OTHER_TAG, umask=0o077),
    )

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert first.stdout != second.stdout
    assert read_index(first.stdout) == read_index(second.stdout)


def test_it_prints_one_folder_with_every_tree_of_its_index(checkout):
    """stdout is one line, the folder; the index's sizes, digests and version are those of the files."""
    result = checkout.build("--tag", TAG)

    assert result.stdout.count("\n") == 1
    folder = Path(result.stdout.strip())
    index = read_index(result.stdout)
    tree = index["trees"][TAG]
    packed = folder / tree["file"]
    digest = subprocess.run(["sha256sum", packed], capture_output=True, text=True, check=True).stdout.split()[
        0
    ]
    assert folder.parent == checkout.cache
    assert sorted(path.name for path in folder.iterdir()) == [f"{TAG}.tar.gz", "index.json"]
    assert list(index["trees"]) == [TAG]
    assert (tree["sha256"], tree["size"]) == (digest, packed.stat().st_size)
    assert index["version"] == VERSION
    assert tree["glibc_min"] == "2.17"


def test_a_second_call_builds_nothing(checkout):
    """With the same sources and lock the cached folder is printed, and its files are left as they are."""
    first = checkout.build("--tag", TAG)
    before = (Path(first.stdout.strip()) / f"{TAG}.tar.gz").stat()

    second = checkout.build("--tag", TAG)

    assert second.stdout == first.stdout
    assert second.stderr == ""
    assert (Path(second.stdout.strip()) / f"{TAG}.tar.gz").stat() == before


def test_who_only_asks_builds_nothing(checkout):
    """`--if-built` prints the folder of a build that is there, and an empty line where there is none."""
    assert checkout.build("--tag", TAG, "--if-built").stdout == "\n"
    assert not checkout.cache.exists()
    first = checkout.build("--tag", TAG)
    assert checkout.build("--tag", TAG, "--if-built").stdout == first.stdout


def test_a_changed_source_gives_another_folder_and_digest(checkout):
    """Folders are named by what goes in; a stray file beside the sources goes not in."""
    first = checkout.build("--tag", TAG)
    (checkout.package / "notes.txt.orig").write_text("left over")
    stray = checkout.build("--tag", TAG)
    (checkout.package / "added.py").write_text('"""More."""\n')
    changed = checkout.build("--tag", TAG)

    assert stray.stdout == first.stdout
    assert changed.stdout != first.stdout
    digests = {read_index(result.stdout)["trees"][TAG]["sha256"] for result in (first, changed)}
    assert len(digests) == 2


def test_a_damaged_cached_tree_is_built_anew(checkout):
    """A file that lost its end does not pass for a build."""
    first = checkout.build("--tag", TAG)
    packed = Path(first.stdout.strip()) / f"{TAG}.tar.gz"
    whole = packed.read_bytes()
    packed.write_bytes(whole[:1000])

    second = checkout.build("--tag", TAG)

    assert second.returncode == 0
    assert packed.read_bytes() == whole


def test_a_tree_that_another_build_holds_is_not_built_again(checkout):
    """Alone or among others it is the same bytes; one that is damaged is built."""
    first = checkout.build("--tag", TAG)
    packed = Path(first.stdout.strip()) / f"{TAG}.tar.gz"
    whole = packed.read_bytes()

    both = checkout.build("--tag", TAG, OTHER_TAG)
    packed.write_bytes(whole[:1000])
    alone = checkout.build("--tag", OTHER_TAG)

    assert f"{TAG}: " not in both.stderr
    assert f"{OTHER_TAG}: " in both.stderr
    assert (Path(both.stdout.strip()) / f"{TAG}.tar.gz").read_bytes() == whole
    assert sorted(read_index(both.stdout)["trees"]) == sorted([TAG, OTHER_TAG])
    assert f"{OTHER_TAG}: " not in alone.stderr


def test_a_killed_build_leaves_nothing_that_the_next_one_does_not_mend(checkout):
    """After kill -9 half way there is no folder to be mistaken for a build, and the next run clears up."""
    with subprocess.Popen(
        checkout.command("--tag", TAG),
        env=checkout.environment,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as builder:
        until(lambda: any(checkout.cache.glob(".artefact-partial-*/*")))
        os.killpg(builder.pid, signal.SIGKILL)
    assert not list(checkout.cache.glob("*/index.json"))
    assert list(checkout.cache.glob(".artefact-partial-*"))

    result = checkout.build("--tag", TAG)

    assert result.returncode == 0, result.stderr
    assert not list(checkout.cache.glob(".artefact-partial-*"))


def test_two_builders_at_once_make_one_build(checkout):
    """The second waits for the first and takes what that one made."""
    builders = [
        subprocess.Popen(
            checkout.command("--tag", TAG),
            env=checkout.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    results = [builder.communicate(timeout=BUILD_TIMEOUT_S) for builder in builders]

    assert [builder.returncode for builder in builders] == [0, 0]
    assert results[0][0] == results[1][0]
    assert "".join(stderr for _, stderr in results).count(f"{TAG}: ") == 1


def test_out_names_the_folder_and_an_older_build_in_it_is_replaced(checkout, tmp_path):
    """--out is the folder itself; what an earlier build left there goes."""
    out = tmp_path / "out"
    assert checkout.build("--out", str(out), "--tag", TAG).stdout == f"{out}\n"
    assert checkout.build("--out", str(out), "--tag", OTHER_TAG).stdout == f"{out}\n"

    assert sorted(path.name for path in out.iterdir()) == [f"{OTHER_TAG}.tar.gz", "index.json"]


def test_a_folder_with_other_things_is_refused(checkout, tmp_path):
    """--out never removes what no build put there."""
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("kept")

    result = checkout.build("--out", str(tmp_path / "letters"), "--tag", TAG)

    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1] == (
        f"artefact: {tmp_path}/letters holds something else than an artefact; "
        "name an empty or new folder by --out"
    )
    assert (tmp_path / "letters" / "dear.txt").read_text() == "kept"


def test_a_wheel_with_another_hash_is_refused(checkout):
    """The lock's hashes decide; the error names the lock and the tree, and nothing is left."""
    lock = checkout.lock.read_text()
    checkout.lock.write_text(re.sub(r"sha256:[0-9a-f]{8}", "sha256:00000000", lock))

    result = checkout.build("--tag", TAG)

    assert result.returncode == 1
    assert f"{TAG}: the wheels of requirements/client.txt could not be installed" in result.stderr
    assert not list(checkout.cache.glob("*/index.json"))
    assert not list(checkout.cache.glob(".artefact-partial-*"))


def test_an_unknown_tag_is_refused_with_the_form_to_write(checkout):
    """A tag that no tree can have is an error of usage."""
    result = checkout.build("--tag", "cp27-sparc")

    assert result.returncode == 2
    assert "tag 'cp27-sparc' is unknown; write cp3<minor>-<x86_64 or aarch64>" in result.stderr


def test_two_versions_of_the_client_are_refused(checkout):
    """The release's version is the same in pyproject.toml and in the package."""
    init = checkout.package / "__init__.py"
    init.write_text(init.read_text().replace(f'"{VERSION}"', '"9.9.9"'))

    result = checkout.build("--tag", TAG)

    assert result.returncode == 1
    assert f"the client's version is 9.9.9 in {init}, but {VERSION} in" in result.stderr


def test_a_checkout_without_its_environment_is_set_up_first(checkout):
    """Without .venv there is no uv; where the setting up fails, its status and its words are the build's."""
    (checkout.root / ".venv").unlink()
    setup = checkout.root / "tools" / "setup"
    setup.write_text('#!/bin/sh\necho "setup: $1 failed" >&2\nexit 3\n')
    setup.chmod(0o755)

    result = checkout.build()

    assert (result.returncode, result.stdout, result.stderr) == (3, "", "setup: control failed\n")


def test_the_builder_needs_nothing_but_the_standard_library(checkout):
    """Whoever has a bare Python can import it: a build never waits for what it builds."""
    code = "import tools.artefact.build"
    result = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=checkout.root, capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stderr
