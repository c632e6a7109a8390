"""`ai-client chat`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ai_client.testing import Simulator
from tests.client.service_rig import Rig, running_service

pytestmark = pytest.mark.slow


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A running service."""
    async with Simulator() as simulator, running_service(tmp_path, simulator) as running:
        yield running


async def test_a_question_is_answered(rig: Rig) -> None:
    """As it comes; nothing but the answer where the output is no terminal."""
    done = await rig.command("chat", "hello", "world", "--max-tokens", "3")
    assert (done.code, done.out, done.err) == (0, "hello world hello\n", "")


async def test_the_whole_answer_as_json(rig: Rig) -> None:
    """For programs."""
    answer = (
        await rig.command("chat", "hello", "--max-tokens", "1", "--json", "--model", "deepseek-v3.2")
    ).json()
    assert answer["choices"][0]["message"]["content"] == "hello"
    assert answer["model"] == "deepseek-v3.2"


async def test_the_question_may_come_by_stdin(rig: Rig) -> None:
    """In a pipe."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ai_client.cli", "chat", "--max-tokens", "2", "--config", str(rig.config)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate(b"from a pipe")
    assert out == b"from a\n"


async def test_an_error_is_told_and_ends_with_1(rig: Rig) -> None:
    """The service's own words; and the remedy where there is no service."""
    done = await rig.command("chat", "hello", "--model", "gpt-9")
    assert (done.code, "gpt-9" in done.err, done.out) == (1, True, "")
    await rig.stop()
    done = await rig.command("chat", "hello")
    assert (done.code, "systemctl status ai-client" in done.err) == (1, True)


async def ask(rig: Rig, *arguments: str, piped: bytes) -> tuple[int | None, str]:
    """With something on standard input: exit code and errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ai_client.cli", "chat", *arguments, "--config", str(rig.config)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate(piped)
    return process.returncode, err.decode()


async def test_nothing_to_ask_and_what_is_no_text_are_told(rig: Rig) -> None:
    """Exit code 2; neither is sent."""
    code, err = await ask(rig, piped=b" \n")
    assert (code, err) == (2, "there is no question; write it after `ai-client chat`, or pipe it in\n")
    code, err = await ask(rig, "-", piped=b"\xff\xfe")
    assert (code, "not UTF-8" in err, "Traceback" in err) == (2, True, False)


async def test_a_reader_that_leaves_is_not_taken_for_a_service_that_does(rig: Rig) -> None:
    """`ai-client chat … | head -c 1`: both are a broken pipe."""
    reader, writer = os.pipe()
    os.close(reader)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ai_client.cli", "chat", "hello", "--config", str(rig.config)),
        stdout=writer,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(writer)
    _, err = await process.communicate()
    assert (process.returncode, err) == (141, b"")
