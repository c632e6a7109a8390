"""One process hands the service to the next: an upgrade without a closed port, a lost request or a second window.

    old                                   new
    starts the new, with the sockets
                                          reads configuration and key, makes its client
                                     <--  {"ready": true}            (or it ends: the old goes on as before)
    stops accepting, takes back what
    waits for admission
    {"go": true, "window": …,
     "stays": true, "beats": true}   -->
                                          counts what the old one sent, accepts
                                     <--  {"serving": true, "stays": true}
    tells systemd MAINPID
    {"main": true}                   -->
    passes on what still comes,           tells systemd READY, which hears
    ends with its last stream             the main process alone
    {"beat": true}                   -->  and again, as often as systemd's watchdog would hear it
                                     <--  {"followed": true}         when it has handed over itself

The channel stays open until one of them ends. Where the new process ends without that last word, the old one serves
again until its streams have ended. A release from before "stays" is heard to say nothing of it, and the old process
closes. Where the old one beats no more, it stands: systemd looks after the main process alone, so the new one ends it,
that its callers see an end. One that does not say that it beats is left alone. The new one does so also when it has
handed over itself, and then ends after the old one.

The messages are lines of JSON on a socket pair whose number is in the environment. The new process is no child of the
old one, which ends before it: systemd learns of the end of its own children alone, and must see its main process end.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai_client.configure.launch import HANDOVER_VARIABLE, Launch, child_environment
from ai_client.gateway.http.sockets import TCP_NAME, UNIX_NAME, BoundFile, Listeners
from ai_client.gateway.process.process_handle import ProcessHandle
from ai_client.platform import json_log

READY_S = 30.0
SERVING_S = 10.0
# Within the time that a process may be silent.
LOOKS = 30
METRICS_NAME = "metrics"
_CHANNEL = "channel"
_LONGEST_LINE = 64 * 1024 * 1024

_log = logging.getLogger(__name__)


class HandoverError(Exception):
    """The next process did not take over; the text says why. The old one still serves."""


@dataclass(frozen=True, slots=True)
class Estate:
    """What goes over: sockets by name, and the Unix socket's file where it is ours to remove in the end."""

    sockets: Mapping[str, socket.socket]
    bound: BoundFile | None

    @classmethod
    def of(cls, listeners: Listeners, metrics: socket.socket | None) -> Estate:
        """All that listens."""
        named = {UNIX_NAME: listeners.unix, TCP_NAME: listeners.tcp, METRICS_NAME: metrics}
        sockets = {name: sock for name, sock in named.items() if sock is not None}
        return cls(sockets, listeners.bound)


def told_of(bound: BoundFile | None) -> dict[str, Any]:
    """Of the Unix socket's file, for the next process."""
    if bound is None:
        return {"bound_path": None}
    return {"bound_path": str(bound.path), "bound_mark": bound.mark}


def bound_of(will: dict[str, Any]) -> BoundFile | None:
    """What `told_of` said."""
    path, mark = will["bound_path"], will.get("bound_mark")
    return BoundFile(Path(path), tuple(mark) if mark else None) if path else None


class _Channel:
    """Lines of JSON over one end of a socket pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, sock: socket.socket) -> _Channel:
        return cls(*await asyncio.open_unix_connection(sock=sock, limit=_LONGEST_LINE))

    async def tell(self, message: dict[str, Any]) -> None:
        self.say(message)
        await self._writer.drain()

    def say(self, message: dict[str, Any]) -> None:
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def hear(self) -> dict[str, Any]:
        """The next message; EOFError where the other side is gone."""
        line = await self._reader.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        message = json.loads(line)
        return message if isinstance(message, dict) else {}

    async def closed(self) -> None:
        """Returns when the other side is gone."""
        while await self._reader.read(_LONGEST_LINE):
            pass

    def close(self) -> None:
        self._writer.close()


class Successor:
    """The old process's view of the next one."""

    # Not asyncio's subprocess: its transport kills the child when this process ends. What it starts detaches itself.
    def __init__(self, process: subprocess.Popen[bytes], channel: _Channel) -> None:
        self._process = process
        self._channel = channel
        self._pid = process.pid
        self._stays = False

    @property
    def pid(self) -> int:
        """Its process id, once it is ready."""
        return self._pid

    @classmethod
    async def start(cls, launch: Launch, *, environment: Mapping[str, str], estate: Estate) -> Successor:
        """Start it and wait until it is ready to take over. Raises HandoverError."""
        ours, theirs = socket.socketpair()
        with theirs:
            numbers = {name: sock.fileno() for name, sock in {**estate.sockets, _CHANNEL: theirs}.items()}
            will = json.dumps({"sockets": numbers, **told_of(estate.bound), "detach": True})
            try:
                process = subprocess.Popen(  # noqa: ASYNC220  a fork of 1 ms, once a release
                    launch.arguments,
                    env=child_environment(environment, handover=will),
                    pass_fds=tuple(numbers.values()),
                    start_new_session=True,
                )
            except OSError as exc:
                ours.close()
                reason = f"{launch.arguments[0]} can't be started ({exc.strerror})"
                raise HandoverError(f"{reason}; see what {launch.program} is") from exc
        successor = cls(process, await _Channel.over(ours))
        ready = await successor._expect("ready", READY_S)
        successor._pid = ready.get("pid", process.pid)
        return successor

    async def go(self, window: Mapping[str, Any], *, beats: bool) -> None:
        """Let it serve: this process accepts no more, and `beats` from then on or not. Raises HandoverError."""
        word = {"go": True, "window": window, "stays": True, "beats": beats}
        message = await self._expect("serving", SERVING_S, say=word)
        self._stays = bool(message.get("stays"))

    async def is_lost(self) -> bool:
        """Tells it that it is the main process, and waits: whether it is gone and nobody follows it."""
        try:
            if not self._stays:
                return False
            await self._channel.tell({"main": True})
            return not (await self._channel.hear()).get("followed")
        except (EOFError, OSError):
            return True
        except ValueError:
            return False

    def beat(self) -> None:
        """This process still ends its streams."""
        if self._stays:
            self._channel.say({"beat": True})

    async def gone(self) -> None:
        """Returns when it listens no more."""
        if self._stays:
            with suppress(OSError):
                await self._channel.closed()

    def close(self) -> None:
        """It learns that this process has ended its streams, or listens to it no more. Idempotent."""
        self._channel.close()

    def reap(self) -> None:
        """What was started has ended, where it has detached what serves."""
        if self._pid != self._process.pid:
            self._process.wait()  # what was started has detached itself and ended long ago

    async def _expect(
        self, word: str, within_s: float, *, say: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Its answer. Raises HandoverError, and then it has been ended."""
        try:
            async with asyncio.timeout(within_s):
                if say is not None:
                    await self._channel.tell(say)
                message = await self._channel.hear()
        except TimeoutError:
            await self.abandon()
            raise HandoverError(
                f"the next process was not {word} within {within_s:g} s; see its log"
            ) from None
        except (EOFError, OSError, ValueError):
            await self.abandon()
            raise HandoverError(f"the next process ended before it was {word}; see its log") from None
        if not message.get(word):
            await self.abandon()
            said = message.get("reason") or f"it said {message}"
            raise HandoverError(f"the next process is not {word}: {said}; see its log")
        return message

    async def abandon(self) -> None:
        """End it, and whatever it has started: all are of a group of their own."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with suppress(TimeoutError, EOFError, OSError, ValueError):
                async with asyncio.timeout(SERVING_S):
                    await self._channel.closed()
                    break
        self._channel.close()
        await asyncio.to_thread(self._process.wait)


def detach(environment: Mapping[str, str]) -> None:
    """Go on as a child of nobody, where the old process asks for it. To be called before there are threads."""
    will = json.loads(environment.get(HANDOVER_VARIABLE) or "{}")
    if will.get("detach") and os.fork():
        # Without anything that ends with a process: all of it is the child's now.
        os._exit(0)


class Inheritance:
    """The next process's view of the old one: the sockets, the word to go, and whether it still ends its streams."""

    def __init__(self, estate: Estate, channel: socket.socket) -> None:
        self._estate = estate
        self._channel_socket = channel
        self._channel: _Channel | None = None
        self._before: ProcessHandle | None = None
        self._is_to_be_named = self._is_named = self._beats = False
        self._heard_or_gone = asyncio.Event()
        #: The old process was gone before the manager knew of this one, which will be told to end for that.
        self.is_orphan = False
        #: The old process stood, and was ended for it.
        self.has_ended_it = False
        #: It lives, and would be ended if it stood.
        self.looks_after = False

    @classmethod
    def take(cls, environment: Mapping[str, str]) -> Inheritance | None:
        """What an old process left for this one; None where it is the first."""
        text = environment.get(HANDOVER_VARIABLE)
        if not text:
            return None
        will = json.loads(text)
        sockets = {}
        for name, number in will["sockets"].items():
            os.set_inheritable(number, False)
            sockets[name] = socket.socket(fileno=number)
            sockets[name].setblocking(False)
        channel = sockets.pop(_CHANNEL)
        return cls(Estate(sockets, bound_of(will)), channel)

    def listeners(self) -> Listeners:
        """The gateway's sockets."""
        sockets = self._estate.sockets
        return Listeners(sockets[UNIX_NAME], sockets.get(TCP_NAME), self._estate.bound)

    def metrics(self) -> socket.socket | None:
        """The metrics' socket, where there is one."""
        return self._estate.sockets.get(METRICS_NAME)

    async def wait_to_go(self, *, unfit: str = "") -> dict[str, Any]:
        """Say that all is ready, and wait for the word: the old process's rate window. EOFError where it is gone.

        `unfit`: why this process may not take over. That is said instead, and HandoverError raised.
        """
        # Before the word, which the old one lives to say: the handle is of no other process.
        self._before = ProcessHandle(self._channel_socket)
        self._channel = await _Channel.over(self._channel_socket)
        if unfit:
            await self._channel.tell({"ready": False, "reason": unfit})
            raise HandoverError(f"this process does not take over: {unfit}")
        await self._channel.tell({"ready": True, "pid": os.getpid()})
        message = await self._channel.hear()
        self._is_to_be_named = bool(message.get("stays"))
        self._beats = bool(message.get("beats"))
        window = message.get("window")
        return window if isinstance(window, dict) else {}

    async def look_after(self, *, silent_s: float | None) -> None:
        """Hears the old process out; one that said that it beats, and then says nothing for `silent_s`, is ended.

        To run from the word to go on. None: nobody is ever ended.
        """
        look_s = silent_s / LOOKS if silent_s is not None and self._beats else None
        self.looks_after = look_s is not None
        # Looks are counted, not seconds: where this process stood as well, it could not have heard anything.
        silent = 0
        try:
            while self._channel is not None:
                if await _hears(self._channel, within_s=look_s):
                    silent = 0
                    self._is_named = True
                    self._heard_or_gone.set()
                else:
                    silent += 1
                    if silent == LOOKS:
                        self._end_it(silent_s)
        except (EOFError, OSError, ValueError):
            self.is_orphan = self._is_to_be_named and not self._is_named
            self.close()
        finally:
            self._heard_or_gone.set()

    def _end_it(self, silent_s: float | None) -> None:
        """It is stopped or hangs, and so do its callers."""
        if self._before is None:
            return
        self._before.kill()
        self.has_ended_it = self.looks_after = not self._before.why_not
        told = {"pid": self._before.pid, "silent_seconds": silent_s, "ended": self.has_ended_it}
        if self._before.why_not:
            told["reason"] = f"{self._before.why_not}; end it by hand, its callers wait"
        _log.error("predecessor_stands", extra=json_log.fields(told))

    async def say_serving(self) -> None:
        """Connections are accepted; returns when this is the main process, or the old one is gone."""
        if self._channel is None:
            return
        with suppress(OSError):
            await self._channel.tell({"serving": True, "stays": True})
        await self._heard_or_gone.wait()

    def say_followed(self) -> None:
        """Another process serves: the end of this one is not the old one's concern. The old one stays this one's."""
        if self._channel is not None:
            self._channel.say({"followed": True})

    def close(self) -> None:
        """The old process learns that this one listens no more. Idempotent."""
        if self._before is not None:
            self._before.close()
            self._before = None
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self.looks_after = False


async def _hears(channel: _Channel, *, within_s: float | None) -> bool:
    """Whether a message came in that time. Raises EOFError where the other side is gone."""
    try:
        async with asyncio.timeout(within_s):
            await channel.hear()
    except TimeoutError:
        return False
    return True
