"""The command line, run as users run it."""

from __future__ import annotations

from pathlib import Path

import ai_client
from tests.client import service_rig


async def test_the_version_is_told() -> None:
    """`ai-client 1.0.0`."""
    done = await service_rig.ai_client("--version")
    assert (done.code, done.out) == (0, f"ai-client {ai_client.__version__}\n")


async def test_config_check_tells_all_faults(tmp_path: Path) -> None:
    """Exit code 1 and a line each; `--json` for programs."""
    path = tmp_path / "ai.conf"
    path.write_text("[api]\ntimeout = x\nretries = 3\n")
    done = await service_rig.ai_client("config", "check", "--config", str(path))
    assert done.code == 1
    assert len(done.err.splitlines()) == 2
    answer = (await service_rig.ai_client("config", "check", "--json", "--config", str(path))).json()
    assert [problem["key"] for problem in answer["problems"]] == ["timeout", "retries"]


async def test_config_check_of_a_right_file_ends_with_0(tmp_path: Path) -> None:
    """Nothing on stderr."""
    path = tmp_path / "ai.conf"
    path.write_text("")
    done = await service_rig.ai_client("config", "check", "--config", str(path))
    assert (done.code, done.err) == (0, "")


async def test_serve_without_a_key_says_where_one_belongs(tmp_path: Path) -> None:
    """No traceback; the exit code for configuration."""
    path = tmp_path / "ai.conf"
    path.write_text("")
    done = await service_rig.ai_client("serve", "--config", str(path), "--key-file", str(tmp_path / "none"))
    assert done.code == 78
    assert "write the key there" in done.err
    assert "Traceback" not in done.err


async def test_serve_without_a_trail_that_is_wanted_says_why(tmp_path: Path) -> None:
    """As on a file system that is read-only by now: nobody may call unseen."""
    path, key = tmp_path / "ai.conf", tmp_path / "key"
    path.write_text(
        f"[logging]\nlog_dir = {tmp_path}\n[gateway]\nsocket = {tmp_path}/s\nport = 0\n[audit]\nenabled = true\n"
    )
    key.write_text(service_rig.TEST_KEY)
    in_the_way = tmp_path / "audit.head"
    in_the_way.mkdir()
    state = {"STATE_DIRECTORY": str(tmp_path / "state")}
    serve = ("serve", "--config", str(path), "--key-file", str(key))
    done = await service_rig.ai_client(*serve, environment=state)
    assert done.code == 78
    assert done.err == (
        f"{in_the_way}: [audit] enabled: the trail can't be opened (Is a directory); "
        "make folder and files the service user's, or set enabled = false\n"
    )


async def test_no_command_shows_the_help_with_examples() -> None:
    """Exit code 2."""
    done = await service_rig.ai_client()
    assert done.code == 2
    assert "examples:" in done.err
