"""A client that is used from several event loops, threads and processes: it works, or says what is wrong."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator

import pytest

from ai_client.testing import Simulator, SimulatorOptions

_HEAD = """
import asyncio, gc, json, os, sys, threading
from ai_client import AIAPIClient
from ai_client.errors import AIClientError
client = AIAPIClient("hs_test_0123456789abcdef", sys.argv[1], requests_per_minute=100)

async def ask(text="x"):
    try:
        answer = await client.chat_completion([{"role": "user", "content": text}])
        return "answered" if answer["choices"] else "empty"
    except AIClientError as error:
        return f"{type(error).__name__}: {error}"

def in_child(work):
    # What the child says. It ends as children of multiprocessing do, but lets go of the client before.
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        asyncio.events._set_running_loop(None)
        os.write(write, json.dumps(work()).encode())
        os.close(write)
        del globals()["client"]
        gc.collect()
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return json.loads(said or '"it died"')
"""


@pytest.fixture
async def upstream() -> AsyncIterator[Simulator]:
    async with Simulator(SimulatorOptions(latency_ms=50)) as simulator:
        yield simulator


async def run(upstream: Simulator, script: str) -> object:
    """What the script prints, as JSON."""
    command = [sys.executable, "-c", _HEAD + textwrap.dedent(script), upstream.base_url]
    ended = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return json.loads(ended.stdout)


async def test_one_loop_after_another_is_fine(upstream: Simulator) -> None:
    """As in a script that calls `asyncio.run` for each question."""
    said = await run(upstream, "print(json.dumps([asyncio.run(ask()) for _ in range(3)]))")
    assert said == ["answered"] * 3


async def test_a_second_thread_at_the_same_time_is_told_so(upstream: Simulator) -> None:
    """One of them has the client, the others get an error with a remedy; nobody hangs, and the client works on."""
    script = """
    said = []
    gate = threading.Barrier(4)
    async def wait_and_ask():
        gate.wait()
        return await ask()
    threads = [threading.Thread(target=lambda: said.append(asyncio.run(wait_and_ask()))) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    print(json.dumps([sorted(said), asyncio.run(ask())]))
    """
    said, after = await run(upstream, script)  # type: ignore[misc]
    refused = [text for text in said if text != "answered"]
    assert "answered" in said
    assert refused
    assert all("ClientInUseError" in text and "one client for each event loop" in text for text in refused)
    assert after == "answered"


async def test_a_child_process_has_connections_of_its_own(upstream: Simulator) -> None:
    """It works after a fork between calls and within one, and leaves the parent's connection as it was."""
    script = """
    said = [asyncio.run(ask())]
    said.append(in_child(lambda: asyncio.run(ask())))
    async def forked_inside():
        said.append(await ask())
        waiting = asyncio.create_task(ask())
        await asyncio.sleep(0.01)
        said.append(in_child(lambda: [asyncio.run(ask()), client.get_stats()["window_requests"]]))
        said.extend(await asyncio.gather(waiting, ask(), ask()))
    asyncio.run(forked_inside())
    print(json.dumps(said))
    """
    said = await run(upstream, script)
    # The child's window holds what its parent had sent by then: three and the one under way, and its own.
    assert said == ["answered", "answered", "answered", ["answered", 4], "answered", "answered", "answered"]


async def test_a_client_with_a_ledger_says_in_a_child_that_it_is_the_parents(upstream: Simulator) -> None:
    """SQLite's locks and the ledger's own belong to the process that took them."""
    script = """
    class Memory:
        pass
    client = AIAPIClient("hs_test_0123456789abcdef", sys.argv[1], ledger=Memory())
    print(json.dumps(in_child(lambda: asyncio.run(ask()))))
    """
    said = str(await run(upstream, script))
    assert said.startswith("ClientInUseError: client: was made in the process that this one was forked from")
    assert "with a ledger of that process" in said
