"""The litellm SDK, unmodified, against the gateway: it is told another address and a token."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path

import pytest

from ai_client.testing import Simulator
from tests.client.service_rig import TOKEN, running_service

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CALLER = Path(__file__).with_name("litellm_caller.py")
INSTALL_TIMEOUT_S = 400
CALL_TIMEOUT_S = 180


@pytest.fixture(scope="module")
def python() -> Path:
    """An interpreter that has litellm, of a locked version; kept beside the checkout's other venvs."""
    argv = [str(ROOT / "tools" / "venv"), "sdk"]
    made = subprocess.run(argv, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
    assert made.returncode == 0, made.stderr
    return Path(made.stdout.strip()) / "bin" / "python"


async def test_litellm_works_as_it_is(tmp_path: Path, python: Path) -> None:
    """Chat, streams, embeddings, synchronous and not, and an unknown model as its own error."""
    # Without this it asks the network for prices when it is imported.
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    async with Simulator() as simulator, running_service(tmp_path, simulator) as rig:
        process = await asyncio.create_subprocess_exec(
            *(str(python), str(CALLER), f"http://127.0.0.1:{rig.port}/v1", TOKEN),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
        async with asyncio.timeout(CALL_TIMEOUT_S):
            out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    seen = json.loads(out.splitlines()[-1])
    refused = seen.pop("refused")
    assert seen == {
        "plain": "hello world",
        "completion_tokens": 2,
        "stream": "hello world",
        "asynchronous": "hello world",
        "asynchronous_stream": "hello world",
        "embeddings": [8, 8],
    }
    assert "gpt-9" in refused
