"""The search for leaks finds what is planted: a check that cannot fail proves nothing."""

import base64
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.fleet.leaks import Watch, in_files, in_text

SECRET = "hs_test_planted_0a1b2c3d4e5f"

ENCODED = {
    "plain": SECRET,
    "hex": SECRET.encode().hex(),
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "base64 after one character": base64.b64encode(b"x" + SECRET.encode() + b"tail").decode(),
    "base64 after two characters": base64.b64encode(b"xy" + SECRET.encode() + b"tail").decode(),
    "url": quote(SECRET, safe=""),
}


@pytest.mark.parametrize("encoding", ENCODED)
def test_a_planted_leak_is_found_in_every_encoding(encoding: str, tmp_path: Path) -> None:
    """Plain, hexadecimal, URL-encoded, and base64 at each alignment; in text and in files."""
    text = f"before {ENCODED[encoding]} after"
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "leak").write_text(text)
    assert in_text(text, SECRET)
    assert in_files([tmp_path], SECRET)


def test_what_does_not_hold_the_secret_is_not_accused(tmp_path: Path) -> None:
    """Another key, a fingerprint, or an allowed file is no leak."""
    (tmp_path / "other").write_text("hs_test_another_ffffffff")
    (tmp_path / "key").write_text(SECRET)
    assert in_files([tmp_path], SECRET, allowed=[tmp_path / "key"]) == []
    assert in_text("hs_test_[masked]", SECRET) == []


def test_any_of_several_secrets_is_found_wherever_it_lies(tmp_path: Path) -> None:
    """A second file of the same length and time is another file."""
    other = "hs_test_planted_99999999999"
    (tmp_path / "one").write_text(SECRET)
    (tmp_path / "other").write_text(f"{other} ")
    os.utime(tmp_path / "other", ns=(0, 0))
    os.utime(tmp_path / "one", ns=(0, 0))
    found = in_files([tmp_path], SECRET, other)
    assert {hit.partition(":")[0] for hit in found} == {f"{tmp_path}/one", f"{tmp_path}/other"}


def test_a_secret_in_the_arguments_of_a_process_is_seen(tmp_path: Path) -> None:
    """What any local user sees in `ps` while a command runs."""
    with (
        Watch(SECRET, []) as watch,
        subprocess.Popen([sys.executable, "-c", "input()", SECRET], stdin=-1) as held,
    ):
        _wait(lambda: bool(watch.hits))
        held.communicate(b"\n")
    assert any("plain" in hit for hit in watch.hits)


def test_a_secret_in_a_file_that_is_soon_gone_is_seen(tmp_path: Path) -> None:
    """A temporary file that does not outlive the command."""
    with Watch(SECRET, [tmp_path]) as watch:
        (tmp_path / "short-lived").write_text(SECRET)
        _wait(lambda: bool(watch.hits))
        (tmp_path / "short-lived").unlink()
    assert any("short-lived" in hit for hit in watch.hits)


def _wait(met: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(400):
        if met():
            return
        pause.wait(0.025)
    raise AssertionError("the watch saw nothing in ten seconds")
