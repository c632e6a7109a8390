"""LangChain, LiteLLM and Pydantic AI, unmodified, against the gateway: they are told another address and a token."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.client.service_rig import TOKEN, Rig

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

ROOT = Path(__file__).resolve().parents[3]
INSTALL_TIMEOUT_S = 400
CALL_TIMEOUT_S = 180
# Without these they ask the network: for prices at the import, and to tell of their runs.
QUIET = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGSMITH_TRACING": "false"}
HELLO = "hello world"


@pytest.fixture(scope="module")
def python() -> Path:
    """An interpreter that has them, of locked versions; kept beside the checkout's other venvs."""
    argv = [str(ROOT / "tools" / "venv"), "sdk"]
    made = subprocess.run(argv, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
    assert made.returncode == 0, made.stderr
    return Path(made.stdout.strip()) / "bin" / "python"


async def told(python: Path, caller: str, base_url: str) -> dict[str, Any]:
    """What a program beside this one got of the gateway."""
    process = await asyncio.create_subprocess_exec(
        *(str(python), str(Path(__file__).with_name(caller)), base_url, TOKEN),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **QUIET},
    )
    async with asyncio.timeout(CALL_TIMEOUT_S):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    seen: dict[str, Any] = json.loads(out.splitlines()[-1])
    return seen


async def test_frameworks_work_as_they_are(rig: Rig, python: Path) -> None:
    """Chat, the Responses API and Anthropic's Messages API; tools, structured output and streams."""
    assert await told(python, "frameworks_caller.py", f"http://127.0.0.1:{rig.port}") == {
        "langchain": {
            "chat": HELLO,
            "stream": HELLO,
            "tool": "weather",
            "structured": HELLO,
            "responses": HELLO,
            "claude": HELLO,
            "claude_stream": HELLO,
        },
        "litellm": {"responses": HELLO, "claude": HELLO, "claude_tokens": 2},
        "pydantic_ai": {"chat": HELLO, "responses": HELLO, "claude": HELLO, "claude_stream": HELLO},
    }


async def test_litellms_own_calls_work_as_they_are(rig: Rig, python: Path) -> None:
    """Chat, streams, embeddings, synchronous and not, and an unknown model as its own error."""
    seen = await told(python, "litellm_caller.py", f"http://127.0.0.1:{rig.port}/v1")
    assert "gpt-9" in seen.pop("refused")
    assert seen == {
        "plain": HELLO,
        "completion_tokens": 2,
        "stream": HELLO,
        "asynchronous": HELLO,
        "asynchronous_stream": HELLO,
        "embeddings": [8, 8],
    }
