"""The audit against a database of our own, which speaks OSV's API on loopback."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.tools.artefact_checkout import ROOT
from tools.artefact.audit import not_looked_up, packages, requirement_files

pytestmark = pytest.mark.slow

VULNERABLE = {
    "id": "PYSEC-2030-1",
    "aliases": ["CVE-2030-0001"],
    "summary": "reads past the end",
    "affected": [
        {
            "package": {"name": "thing", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}],
        }
    ],
}


class Database(ThreadingHTTPServer):
    """Knows one vulnerable package, and remembers what it was asked."""

    def __init__(self, *, status: int = 200, body: bytes | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.status, self.body = status, body
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/query"


class Answer(BaseHTTPRequestHandler):
    server: Database

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = (query["package"]["name"], query["version"])
        self.server.asked.append(asked)
        known = {"vulns": [VULNERABLE]} if asked == ("thing", "1.0") else {}
        body = json.dumps(known).encode() if self.server.body is None else self.server.body
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Tests read what the auditor says, not the server."""


@contextmanager
def serving(database: Database) -> Iterator[Database]:
    thread = Thread(target=database.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield database
    finally:
        database.shutdown()
        thread.join()
        database.server_close()


@pytest.fixture
def locks(tmp_path: Path) -> list[Path]:
    """Two locks: one safe package in both, two versions of another, one of them for another platform."""
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text("safe==3.1 \\\n    --hash=sha256:" + "0" * 64 + "\nthing==1.0 ; sys_platform == 'win32'\n")
    two.write_text("safe==3.1\nthing==2.0\n")
    return [one, two]


def audit(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [ROOT / "tools/audit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_a_vulnerable_package_is_named_with_its_locks_and_the_fix(locks):
    """Exit code 1, one line for each vulnerability, packages of other platforms too."""
    with serving(Database()) as database:
        result = audit(*locks, "--database", database.url)

    assert result.returncode == 1, result.stderr
    assert result.stdout == "thing 1.0: PYSEC-2030-1 CVE-2030-0001, fixed in 2.0 (in one.txt)\n"
    assert sorted(database.asked) == [("safe", "3.1"), ("thing", "1.0"), ("thing", "2.0")]


def test_only_packages_that_were_all_looked_up_are_called_clean(locks):
    """Exit code 0 says that the database answered for each."""
    with serving(Database()) as database:
        result = audit(locks[1], "--database", database.url)

    assert result.returncode == 0
    assert result.stderr.splitlines()[-1] == "audit: 2 packages looked up, none is known to be vulnerable"


def test_every_lock_of_the_project_is_looked_up():
    """Without arguments each locked version of requirements/*.txt is asked for."""
    with serving(Database()) as database:
        result = audit("--database", database.url)

    assert result.returncode == 0, result.stderr
    expected = packages((ROOT / "requirements").glob("*.txt")).keys()
    assert set(database.asked) == expected
    assert len(expected) > 100


def test_a_database_that_is_away_is_said_to_be_so(locks):
    """Exit code 2; nothing is claimed about any package."""
    with serving(Database()) as database:
        url = database.url
    result = audit(*locks, "--database", url)

    assert result.returncode == 2
    assert result.stdout == ""
    assert f"audit: the vulnerability database {url} can't be reached: " in result.stderr
    assert result.stderr.endswith(
        "audit: nothing was looked up; whether a locked package is vulnerable is unknown\n"
    )
    assert "none is known" not in result.stderr


@pytest.mark.parametrize(("status", "body"), [(503, b"busy"), (200, b"<html>sign in</html>"), (404, b"")])
def test_a_database_that_answers_nonsense_is_as_good_as_away(locks, status, body):
    """A captive portal or an error page is no clean bill of health."""
    with serving(Database(status=status, body=body)) as database:
        result = audit(*locks, "--database", database.url)

    assert result.returncode == 2
    assert f"audit: the vulnerability database {database.url} can't be reached: " in result.stderr


def test_a_missing_lock_is_named(tmp_path):
    """The error has the path."""
    result = audit(tmp_path / "none.txt")
    assert result.returncode == 2
    assert "none.txt" in result.stderr


def test_an_empty_lock_is_not_called_clean(tmp_path):
    """Nothing looked up is nothing known."""
    (tmp_path / "empty.txt").write_text("")
    with serving(Database()) as database:
        result = audit(tmp_path / "empty.txt", "--database", database.url)
    assert result.returncode == 2


def test_two_versions_of_one_package_go_into_two_files():
    """pip-audit refuses a package that is named twice in one run."""
    assert requirement_files([("b", "1"), ("a", "2"), ("a", "1")]) == ["a==1\nb==1\n", "a==2\n"]


def test_a_package_that_the_auditor_skipped_counts_as_not_looked_up():
    """A skip reason, and silence, are both named."""
    report = {
        "dependencies": [{"name": "A_b", "version": "1", "vulns": []}, {"name": "c", "skip_reason": "odd"}]
    }
    asked = {("a-b", "1"): ["x"], ("c", "2"): ["x"]}
    assert not_looked_up(report, asked=asked) == ["c 2"]
