"""A process that has handed over shows life to the next one, which ends it where it stands: by a clock that jumps."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from ai_client.configure.launch import HANDOVER_VARIABLE
from ai_client.gateway.process import handover
from ai_client.gateway.process.handover import LOOKS, Inheritance
from ai_client.gateway.process.process_handle import ProcessHandle

SILENT_S = 30.0


class Handle:
    """Of the process before this one."""

    pid = 4711
    why_not = ""

    def __init__(self, _: socket.socket) -> None:
        self.kills = 0

    def kill(self) -> None:
        self.kills += 1

    def close(self) -> None:
        """Nothing is open."""


class Before:
    """The old process's end of the channel, and the next one's view of it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._jumped_s = 0.0
        self.channel, theirs = socket.socketpair()
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(folder / "gateway.sock"))
        numbers = {"channel": theirs.detach(), "gateway": listening.detach()}
        will = {"sockets": numbers, "bound_path": None, "detach": True}
        monkeypatch.setattr(handover, "ProcessHandle", Handle)
        inheritance = Inheritance.take({HANDOVER_VARIABLE: json.dumps(will)})
        assert inheritance is not None
        self.inheritance = inheritance
        self.handle: Handle | ProcessHandle | None = None
        self._patch = monkeypatch
        self._task: asyncio.Task[None] | None = None

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self.inheritance.close()
        self.inheritance.listeners().unix.close()
        self.channel.close()

    def say(self, message: dict[str, Any]) -> None:
        self.channel.sendall(json.dumps(message).encode() + b"\n")

    async def go(self, **more: object) -> None:
        """The word to go, and from then on a clock that only `look` moves on."""
        self.say({"go": True, "window": {}, "stays": True, **more})
        await self.inheritance.wait_to_go()
        self.handle = self.inheritance._before
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        self._patch.setattr(loop, "time", lambda: now_s + self._jumped_s)
        self._task = asyncio.create_task(self.inheritance.look_after(silent_s=SILENT_S))
        self.say({"main": True})
        await self.inheritance.say_serving()
        await self.turns()

    async def look(self, times: int, *, each_s: float = SILENT_S / LOOKS) -> int:
        """So much time passes, so often: how often the old process was ended by then."""
        for _ in range(times):
            self._jumped_s += each_s
            await self.turns()
        return self.kills

    @property
    def kills(self) -> int:
        return self.handle.kills if isinstance(self.handle, Handle) else 0

    async def turns(self) -> None:
        """All that is ready is done, and a few times what follows from it."""
        for _ in range(10):
            await asyncio.sleep(0)

    async def ended(self) -> None:
        """The next process hears no more."""
        assert self._task is not None
        await self._task


@pytest_asyncio.fixture
async def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Before]:
    """An old process that is about to say the word."""
    it = Before(tmp_path, monkeypatch)
    yield it
    await it.aclose()


async def test_one_that_says_nothing_any_more_is_ended_once_and_said_to_be(
    before: Before, caplog: pytest.LogCaptureFixture
) -> None:
    """After as long as the manager's watchdog would have waited."""
    await before.go(beats=True)
    assert await before.look(LOOKS - 1) == 0
    assert await before.look(1) == 1
    assert before.inheritance.has_ended_it
    assert await before.look(3 * LOOKS) == 1
    [record] = [each for each in caplog.records if each.getMessage() == "predecessor_stands"]
    assert record.levelname == "ERROR"


async def test_one_that_beats_or_never_said_that_it_would_is_left_alone(before: Before) -> None:
    """A beat is worth the whole time again."""
    await before.go(beats=True)
    for _ in range(3):
        assert await before.look(LOOKS - 1) == 0
        before.say({"beat": True})
        await before.turns()
    assert await before.look(LOOKS) == 1


@pytest.mark.parametrize("more", [{}, {"beats": False}])
async def test_a_release_that_does_not_beat_is_never_ended_for_it(
    before: Before, more: dict[str, object]
) -> None:
    """It was made before this one looked."""
    await before.go(**more)
    assert await before.look(10 * LOOKS) == 0


async def test_time_in_which_this_process_stood_as_well_is_not_held_against_it(before: Before) -> None:
    """Of a container that is frozen for hours both go on together: each such pause counts as one look."""
    await before.go(beats=True)
    assert await before.look(LOOKS - 1, each_s=3600) == 0
    before.say({"beat": True})
    await before.turns()
    assert await before.look(LOOKS - 1) == 0


async def test_one_that_has_ended_is_let_go(before: Before) -> None:
    """The channel's end is its last word, and what stood before it was named is known."""
    await before.go(beats=True)
    before.channel.close()
    async with asyncio.timeout(5):
        await before.ended()
    assert before.kills == 0
    assert not before.inheritance.is_orphan


async def test_who_has_handed_over_itself_looks_on(before: Before) -> None:
    """The one before hears that it is followed, and shows life on the same channel."""
    await before.go(beats=True)
    before.inheritance.say_followed()
    before.channel.settimeout(5)
    heard = b""
    while b"followed" not in heard:
        await before.turns()
        heard += before.channel.recv(4096)
    assert await before.look(LOOKS) == 1


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.ENOSYS, "Function not"), (errno.EPERM, "not permitted")]
)
async def test_without_a_handle_it_is_only_said(
    before: Before,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
    reason: str,
) -> None:
    """By its number alone nobody is killed: that may be another's by then."""

    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    monkeypatch.setattr(handover, "ProcessHandle", ProcessHandle)
    await before.go(beats=True)
    assert before.handle is not None
    assert reason in before.handle.why_not
    await before.look(LOOKS)
    [record] = [each for each in caplog.records if each.getMessage() == "predecessor_stands"]
    assert "by hand" in str(record.__dict__)
    assert not before.inheritance.has_ended_it
