"""`ai-client chat` and `ai-client completion`."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ai_client.testing import Simulator
from tests.client import service_rig
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


def complete(*words: str) -> set[str]:
    """What bash offers behind some words, by the script."""
    script = subprocess.run(
        [sys.executable, "-m", "ai_client.cli", "completion", "bash"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    ask = (
        f"{script}\nCOMP_WORDS=({' '.join(json.dumps(word) for word in words)}); "
        f'COMP_CWORD={len(words) - 1}; _ai_client; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    return set(subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ai-client", "us"], "usage"),
        (["ai-client", "batch", ""], "run"),
        (["ai-client", "batch", "run", "--max"], "--max-usd"),
        (["ai-client", "config", "ch"], "check"),
        (["ai-client", "--config", "x", "completion", ""], "fish"),
    ],
)
def test_bash_completes_commands_and_options(words: list[str], expected: str) -> None:
    """In a real bash."""
    assert expected in complete(*words)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
async def test_other_shells_have_a_script_too(shell: str) -> None:
    """Made from the same parser."""
    done = await service_rig.ai_client("completion", shell)
    assert done.code == 0
    assert "retry-failed" in done.out
