"""A released Pulumi is downloaded where its site answers; the site here is a server of the test's own."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from threading import Thread

import pytest

from tests.engine.fake_programs import Machine
from tools.engine.provision import cache, released
from tools.engine.provision.errors import EngineError
from tools.engine.provision.progress import Progress
from tools.engine.provision.released import Release

NAMES = ("pulumi", "pulumi-language-python", "pulumi-language-python-exec", "pulumi-resource-pulumi-python")
PLATFORM = (os.uname().sysname, os.uname().machine)


@dataclass
class Site:
    """What it serves, and which paths were asked for; `cut` ends an answer half way."""

    url: str = ""
    content: bytes = b""
    status: int = 200
    cut: bool = False
    asked: list[str] = field(default_factory=list)


@contextmanager
def serving() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(self.path)
            self.send_response(site.status)
            self.send_header("content-length", str(len(site.content)))
            self.end_headers()
            self.wfile.write(site.content[: len(site.content) // 2] if site.cut else site.content)

        def log_message(self, *_: object) -> None:
            """Nothing: the test reads what was asked."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as served:
        served.content = archive(*(f"pulumi/{name}" for name in NAMES))
        yield served


@pytest.fixture
def machine(tmp_path: Path, site: Site) -> Machine:
    """A machine with neither Go nor Pulumi, from which the site can be reached."""
    found = Machine(tmp_path)
    del found.environ["AI_CLIENT_FLEET_OFFLINE"]
    found.environ[released.NAMED_BY] = site.url
    return found


def archive(*names: str) -> bytes:
    """A release as its makers pack it, with other languages' hosts beside ours, and a path that leads outside."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in (*names, "pulumi/pulumi-language-nodejs", "../../outside/pulumi-resource-pulumi-python"):
            text = f"#!/bin/sh\n# {name}\n".encode()
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
    return buffer.getvalue()


def pinned(content: bytes) -> Release:
    return Release("9.9.9", {PLATFORM: ("linux-test", hashlib.sha256(content).hexdigest())})


def ensure(machine: Machine, release: Release) -> tuple[Path | None, str]:
    """The folder, and what a user reads meanwhile."""
    shown = StringIO()
    return released.ensure(machine.environ, progress=Progress(shown), release=release), shown.getvalue()


def test_a_release_is_downloaded_once_and_kept(machine: Machine, site: Site) -> None:
    """The engine and Python's part of it, each a program; nothing else of the archive, and nothing outside."""
    release = pinned(site.content)
    folder, said = ensure(machine, release)
    assert folder is not None
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)
    assert all(os.access(path, os.X_OK) for path in folder.iterdir())
    assert "downloading Pulumi 9.9.9" in said
    assert ensure(machine, release) == (folder, "")
    assert site.asked == ["/pulumi-v9.9.9-linux-test.tar.gz"]
    assert not list(machine.folder.rglob("outside"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"content": b"something else"}, "its SHA-256 is"),
        ({"cut": True}, "is not taken from"),
        ({"status": 404}, "can't be downloaded: "),
    ],
)
def test_what_is_not_the_release_is_refused_and_left_alone_for_a_day(
    machine: Machine, site: Site, change: dict[str, object], said: str
) -> None:
    """A wrong digest, an answer that ends half way, a site without it: said, and nothing is left or asked again."""
    release = pinned(site.content)
    for name, value in change.items():
        setattr(site, name, value)
    folder, shown = ensure(machine, release)
    assert folder is None
    assert said in shown
    assert [path.name for path in cache.root(machine.environ).iterdir() if path.suffix != ".lock"] == [
        "no-download-of-pulumi-9.9.9"
    ]
    assert ensure(machine, release) == (None, "")
    assert len(site.asked) == 1


def test_an_archive_that_lacks_a_program_is_refused(machine: Machine, site: Site) -> None:
    site.content = archive("pulumi/pulumi")
    folder, said = ensure(machine, pinned(site.content))
    assert folder is None
    assert "it lacks pulumi-language-python, pulumi-language-python-exec" in said


def test_a_mirror_in_clear_text_is_not_asked(machine: Machine, site: Site) -> None:
    machine.environ[released.NAMED_BY] = "http://mirror.example.com"
    folder, said = ensure(machine, pinned(site.content))
    assert (folder, site.asked) == (None, [])
    assert "has to begin with https://" in said


def test_a_folder_that_cannot_be_written_is_the_users(machine: Machine, site: Site) -> None:
    machine.cache.write_text("a file")
    with pytest.raises(EngineError, match="XDG_CACHE_HOME"):
        ensure(machine, pinned(site.content))


def test_offline_and_on_other_systems_nothing_is_asked(machine: Machine, site: Site) -> None:
    assert ensure(machine, Release("9.9.9", {("Plan9", "mips"): ("x", "y")})) == (None, "")
    machine.environ["AI_CLIENT_FLEET_OFFLINE"] = "1"
    assert ensure(machine, pinned(site.content)) == (None, "")
    assert site.asked == []


def test_the_command_refuses_what_has_not_the_pinned_digest_and_builds(machine: Machine, site: Site) -> None:
    """The whole way: the version that is pinned is asked for, what comes is another, and Go makes the engine."""
    done = machine.add_go().build()
    assert done.returncode == 0, done.stderr
    platform, sha256 = released.RELEASE.archives[PLATFORM]
    assert site.asked == [f"/pulumi-v{released.RELEASE.version}-{platform}.tar.gz"]
    assert f"not {sha256}" in done.stderr
    assert "building pulumi from source" in done.stderr
    again = machine.build()
    assert (again.stdout, again.stderr) == (done.stdout, "")


def test_a_build_that_is_there_needs_no_download(machine: Machine, site: Site) -> None:
    machine.environ["AI_CLIENT_FLEET_OFFLINE"] = "1"
    first = machine.add_go().build()
    del machine.environ["AI_CLIENT_FLEET_OFFLINE"]
    assert machine.build().stdout == first.stdout
    assert site.asked == []
