"""What a command says fits what is wrong: the file that was named, the one cause once, and what it will take."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import pty
import sys
from pathlib import Path

import pytest

from ai_client.bench.load import Load, outlook
from ai_client.settings import ConfigError, load
from ai_client.testing import Simulator
from tests.client.cli.commands import WHOLE, environment, run, title
from tests.client.service_rig import running_service

pytestmark = pytest.mark.slow

# Of a configuration they need nothing: `completion` prints a script, `simulate` has options alone.
_WITHOUT_CONFIG = {("completion",), ("simulate",)}
# Two that have exit codes of their own for it: a health check that fails, and sysexits.h's for services.
_CODES = {(): 1, ("config",): 1, ("fleet",): 1, ("reload",): 1, ("batch", "serve"): 78, ("serve",): 78}


@pytest.mark.parametrize("path", [path for path in WHOLE if path not in _WITHOUT_CONFIG], ids=title)
def test_a_configuration_that_was_named_and_can_not_be_read_is_named(
    path: tuple[str, ...], tmp_path: Path
) -> None:
    """No other socket, folder or limit is taken in its stead; once, and with what to do."""
    (tmp_path / "in.jsonl").write_text("")
    named = tmp_path / "folder.conf"
    named.mkdir()
    done = run(*path, *WHOLE[path], "--config", str(named), folder=tmp_path)
    said = done.stdout + done.stderr
    assert done.returncode == _CODES.get(path, 2)
    assert said.count(f"{named}: can't be read (Is a directory); name the file in it") == 1
    assert "does not answer" not in said


def test_programs_are_told_so_in_json(tmp_path: Path) -> None:
    """By the commands that ask the service and print its answer."""
    for command in (("reload",), ("fleet",), ("--health-check",)):
        done = run(*command, "--json", "--config", str(tmp_path / "none"), folder=tmp_path)
        assert done.returncode == 1
        assert "can't be read" in json.dumps(json.loads(done.stdout))


def test_a_file_that_this_user_may_not_read_is_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The remedy for a file that is there is not to lay it down; tests run as root, who may read all."""

    def refuse(path: Path, _flags: int) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with pytest.raises(ConfigError, match="; write the file"):
        load(tmp_path / "ai.conf")
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigError, match=r"\(Permission denied\); run it as root") as refused:
        load(tmp_path / "ai.conf")
    assert "write the file" not in str(refused.value)


def test_anchors_that_are_none_are_never_answered_in_a_parser_s_words(tmp_path: Path) -> None:
    """Also where they are no text, or nested so deep that a parser gives up."""
    kept = tmp_path / "anchors"
    for content in (b"[" * 200_000, b"\xff\xfe"):
        kept.write_bytes(content)
        done = run("audit", "verify", "--anchors", str(kept), folder=tmp_path)
        assert (done.returncode, "Traceback" in done.stderr, "codec" in done.stderr) == (2, False, False)
        assert "audit_anchor" in done.stderr or f"{kept} is not UTF-8 text" in done.stderr


def test_a_host_with_nothing_set_up_fails_for_the_service_alone(tmp_path: Path) -> None:
    """Without a key `serve` takes the simulator, and what needs a key is not another fault."""
    report = json.loads(run("--health-check", "--json", folder=tmp_path).stdout)
    assert [name for name, check in report["checks"].items() if not check["ok"]] == ["service"]
    assert "simulator" in report["checks"]["key"]["detail"]


def test_a_key_that_is_missing_is_one_fault(tmp_path: Path) -> None:
    """Named on the command line or by a configuration, it is expected; TLS and upstream are not blamed for it."""
    report = json.loads(run("--health-check", "--json", "--key-file", "none", folder=tmp_path).stdout)
    assert [name for name, check in report["checks"].items() if not check["ok"]] == ["key", "service"]


LOAD = Load(
    requests=200,
    at_once=10,
    rate_rps=None,
    model="gpt-4.1",
    max_tokens=4,
    is_streamed=False,
    repeat_share=0.0,
    max_usd=1.0,
)


@pytest.mark.parametrize(
    ("limit", "said"), [(None, ""), (200, ""), (199, "1 minute or more"), (60, "3 minutes or more")]
)
def test_what_a_bench_takes_is_known_from_the_limit(limit: int | None, said: str) -> None:
    """A window lets its limit through at once, and again every minute."""
    assert (said in outlook(LOAD, limit)) if said else (outlook(LOAD, limit) == "")


async def test_a_bench_says_what_it_takes_and_counts_on_a_terminal(tmp_path: Path) -> None:
    """By the service's own limit, before the first request; the counter is wiped, and no pipe sees it."""
    async with Simulator() as simulator, running_service(tmp_path, simulator, extra="rate_limit = 8") as rig:
        arguments = (
            "bench",
            "--requests",
            "9",
            "--repeat",
            "0",
            "--max-usd",
            "1",
            "--config",
            str(rig.config),
        )
        ours, theirs = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ai_client.cli", *arguments),
            env=environment(tmp_path),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=theirs,
        )
        os.close(theirs)
        with os.fdopen(ours, "rb", buffering=0) as terminal:
            seen = await _until(terminal, b"8 of 9 requests")
            process.terminate()
            async with asyncio.timeout(30):
                await process.wait()
    assert seen.startswith("this host: 9 requests, 9 of them new, at 8 a minute: 1 minute or more")
    assert "\rthis host: 1 of 9 requests" in seen


async def _until(terminal: io.RawIOBase, mark: bytes) -> str:
    seen = b""
    async with asyncio.timeout(30):
        while mark not in seen:
            seen += await asyncio.to_thread(terminal.read, 4096) or b""
    return seen.decode()
