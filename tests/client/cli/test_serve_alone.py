"""`ai-client serve` and `simulate` for somebody who has configured nothing."""

from __future__ import annotations

import json
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.client.cli.commands import run, start

pytestmark = pytest.mark.slow

KEY = "hs_test_0123456789abcdef"


@contextmanager
def serving(folder: Path, *arguments: str, **settings: str) -> Iterator[list[str]]:
    """The lines that it prints until it has said everything; it must then end by Ctrl-C, as it should."""
    with start("serve", "--port", "0", *arguments, folder=folder, **settings) as process:
        lines = _until_ready(process)
        try:
            yield lines
        finally:
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")


def _until_ready(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith("try:"):
            return lines
    raise AssertionError(f"it ended: {lines} {process.communicate()}")


def test_without_configuration_and_key_the_simulator_answers(tmp_path: Path) -> None:
    """It says where it listens, and that these are no real answers; `chat` and `usage` find it."""
    with serving(tmp_path) as lines:
        assert lines[0] == f"listening on {tmp_path}/.local/state/ai-client/gateway.sock"
        assert any(line.startswith("no key: answers come from the built-in simulator") for line in lines)
        assert lines[-1] == f"try:  {sys.executable} -m ai_client.cli chat 'Say hello.'"
        chat = run("chat", "Say", "hello.", "--max-tokens", "2", folder=tmp_path)
        assert (chat.returncode, chat.stdout, chat.stderr) == (0, "Say hello.\n", "")
        health = run("--health-check", folder=tmp_path)
        assert "from the built-in simulator" in health.stdout
        usage = json.loads(run("usage", "--json", folder=tmp_path).stdout)
    assert usage["total"]["requests"] == 1
    assert run("usage", folder=tmp_path).returncode == 0


def test_what_to_try_is_typed_as_the_program_was(tmp_path: Path) -> None:
    """In a virtual environment that is not on PATH, the bare name would not be found."""
    program = Path(sys.executable).with_name("ai-client")
    for path, shown in ((f"{program.parent}:/usr/bin:/bin", "ai-client"), ("/usr/bin:/bin", str(program))):
        process = subprocess.Popen(
            [program, "serve", "--port", "0"],
            env={"HOME": str(tmp_path), "PATH": path},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            said = next(line for line in process.stdout if line.startswith("try:"))
        finally:
            process.terminate()
            process.communicate(timeout=60)
        assert said == f"try:  {shown} chat 'Say hello.'\n"


def test_the_user_s_files_are_for_the_user_alone(tmp_path: Path) -> None:
    """Folders, token and socket; a second start keeps the token, which callers have in their shells."""
    with serving(tmp_path):
        state = tmp_path / ".local" / "state" / "ai-client"
        token = (state / "token").read_text()
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (state, state / "token")}
        assert modes == {"ai-client": 0o700, "token": 0o600}
        assert stat.S_IMODE((state / "gateway.sock").stat().st_mode) & 0o007 == 0
    with serving(tmp_path):
        assert (state / "token").read_text() == token
    assert list(state.glob("token.*")) == []


def test_a_home_with_a_long_path_has_its_socket_in_a_short_one(tmp_path: Path) -> None:
    """Of this user alone, and found by every command."""
    home = tmp_path / ("long" * 30)
    home.mkdir()
    with serving(home) as lines:
        socket = Path(lines[0].split()[2])
        assert len(str(socket)) < 107
        assert socket.parent.stat().st_mode & 0o777 == 0o700
        assert run("--health-check", folder=home).returncode == 0
    socket.parent.rmdir()


def test_callers_over_tcp_use_the_token(tmp_path: Path) -> None:
    """As an SDK does, by base URL and key."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with serving(tmp_path, "--port", str(port)) as lines:
        assert lines[0].endswith(f" and http://127.0.0.1:{port}/v1")
        token = (tmp_path / ".local/state/ai-client/token").read_text()
        url = f"http://127.0.0.1:{port}/v1/models"
        assert httpx.get(url, headers={"authorization": f"Bearer {token}"}).status_code == 200
        assert httpx.get(url).status_code == 401


def test_with_a_key_and_a_base_url_that_provider_is_asked(tmp_path: Path) -> None:
    """Here `ai-client simulate`, which says where it listens, too."""
    with start("simulate", "--port", "0", folder=tmp_path) as provider:
        assert provider.stdout is not None
        said = provider.stdout.readline()
        assert said.startswith("listening on http://127.0.0.1:")
        base_url = said.split()[2]
        with serving(tmp_path, "--base-url", base_url, AI_CLIENT_API_KEY=KEY) as lines:
            assert f"provider: {base_url}" in lines
            assert run("chat", "hello", folder=tmp_path).returncode == 0
            health = run("--health-check", folder=tmp_path).stdout
        provider.send_signal(signal.SIGINT)
        _, err = provider.communicate(timeout=30)
    assert (provider.returncode, err) == (0, "")
    assert "from AI_CLIENT_API_KEY" in health
    assert (tmp_path / ".local/state/ai-client/ledger.sqlite").exists()


def test_a_key_that_can_not_be_used_is_never_replaced_by_the_simulator(tmp_path: Path) -> None:
    """Made-up answers must not stand in for a mistake."""
    done = run("serve", folder=tmp_path, AI_CLIENT_API_KEY='"quoted"')
    assert done.returncode == 78
    assert "AI_CLIENT_API_KEY does not hold" in done.stderr
    done = run("serve", "--key-file", str(tmp_path / "none"), folder=tmp_path)
    assert (done.returncode, "write the key there" in done.stderr) == (78, True)


def test_a_configuration_that_is_named_must_be_there(tmp_path: Path) -> None:
    """Only the default one may be missing."""
    done = run("serve", "--config", str(tmp_path / "none.conf"), folder=tmp_path)
    assert (done.returncode, "none.conf: can't be read" in done.stderr) == (78, True)
    done = run("serve", folder=tmp_path, AI_CLIENT_CONFIG=str(tmp_path / "none.conf"))
    assert done.returncode == 78


def test_a_home_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    """With the variables that say where else."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = run("serve", folder=tmp_path, HOME=str(blocked))
    assert done.returncode == 78
    assert "can't be made" in done.stderr
    assert "XDG_STATE_HOME" in done.stderr


def test_ports_in_use_are_named_with_the_option_that_gives_another(tmp_path: Path) -> None:
    """Of the gateway and of the simulator."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("serve", "--port", port, folder=tmp_path)
        assert (done.returncode, f"127.0.0.1:{port}" in done.stderr, "--port" in done.stderr) == (
            1,
            True,
            True,
        )
        done = run("simulate", "--port", port, folder=tmp_path)
        assert (done.returncode, f"127.0.0.1:{port}" in done.stderr, "--port" in done.stderr) == (
            1,
            True,
            True,
        )
