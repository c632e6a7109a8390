"""Which user may read what the service writes, and what the command line says to the others."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ai_client.testing import Simulator
from tests.client.service_rig import Rig, running_service

CHAT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
SERVICE_GROUP, STRANGER = 64_991, 64_992


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own is its user's."""
    with TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


# Python itself may lie where strangers can't read: it loads what it needs before it becomes one.
AS_ANOTHER = """
import os, sys
from ai_client.cli import arguments, audit, usage
options = arguments.build().parse_args(sys.argv[3:])
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[2]))
sys.exit({"audit": audit, "usage": usage}[options.command].run(options))
"""


async def run_as(rig: Rig, *arguments: str, group: int) -> tuple[int | None, str]:
    """Exit code and errors of the command as another user, who is in one group."""
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-c",
            AS_ANOTHER,
            str(group),
            str(STRANGER),
            *arguments,
            "--config",
            str(rig.config),
        ),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        cwd=rig.folder,
    )
    async with asyncio.timeout(60):
        _, errors = await process.communicate()
    return process.returncode, errors.decode()


async def test_the_ledger_is_for_root_and_the_audit_trail_for_the_group_too(folder: Path) -> None:
    """Each refusal names who may."""
    async with Simulator() as simulator, running_service(folder, simulator) as rig, rig.client() as client:
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
        await rig.stop()
        for path in [rig.folder / "log", *(rig.folder / "log").iterdir()]:
            path.chmod(path.stat().st_mode & 0o750)
            os.chown(path, -1, SERVICE_GROUP)
        ledgers = sorted((rig.folder / "cache").glob("ledger.sqlite*"))
        assert ledgers
        assert {path.stat().st_mode & 0o777 for path in ledgers} == {0o600}
        code, errors = await run_as(rig, "usage", group=SERVICE_GROUP)
        assert (code, "run it as root" in errors) == (1, True), errors
        assert await run_as(rig, "audit", "verify", group=SERVICE_GROUP) == (0, "")
        code, errors = await run_as(rig, "audit", "verify", group=STRANGER)
        assert (code, "member of the group ai-client" in errors) == (2, True), errors
