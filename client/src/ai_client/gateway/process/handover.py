"""One process hands the service to the next: an upgrade without a closed port, a lost request or a second window.

    old                                   new
    starts the new, with the sockets
                                          reads configuration and key, makes its client
                                     <--  {"ready": true}            (or it ends: the old goes on as before)
    stops accepting, takes back what
    waits for admission
    {"go": true, "window": …,
     "stays": true}                  -->
                                          counts what the old one sent, accepts
                                     <--  {"serving": true, "stays": true}
    tells systemd MAINPID
    {"main": true}                   -->
    passes on what still comes,           tells systemd READY, which hears
    ends with its last stream             the main process alone
                                     <--  {"followed": true}         when it has handed over itself

The channel stays open: where it ends without that word, the new process is gone, and the old one serves again until its
streams have ended. A release from before "stays" is heard to say nothing of it, and the old process closes.

The messages are lines of JSON on a socket pair whose number is in the environment. The new process is no child of the
old one, which ends before it: systemd learns of the end of its own children alone, and must see its main process end.
"""

from __future__ import annotations

import asyncio
import json
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
from ai_client.gateway.http.sockets import TCP_NAME, UNIX_NAME, Listeners

READY_S = 30.0
SERVING_S = 10.0
METRICS_NAME = "metrics"
_CHANNEL = "channel"
_LONGEST_LINE = 64 * 1024 * 1024


class HandoverError(Exception):
    """The next process did not take over; the text says why. The old one still serves."""


@dataclass(frozen=True, slots=True)
class Estate:
    """What goes over: sockets by name, and the Unix socket's file where it is ours to remove in the end."""

    sockets: Mapping[str, socket.socket]
    bound_path: Path | None

    @classmethod
    def of(cls, listeners: Listeners, metrics: socket.socket | None) -> Estate:
        """All that listens."""
        named = {UNIX_NAME: listeners.unix, TCP_NAME: listeners.tcp, METRICS_NAME: metrics}
        sockets = {name: sock for name, sock in named.items() if sock is not None}
        return cls(sockets, listeners.bound_path)


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
            bound_path = None if estate.bound_path is None else str(estate.bound_path)
            will = json.dumps({"sockets": numbers, "bound_path": bound_path, "detach": True})
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

    async def go(self, window: Mapping[str, Any]) -> None:
        """Let it serve: this process accepts no more. Raises HandoverError."""
        message = await self._expect("serving", SERVING_S, say={"go": True, "window": window, "stays": True})
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
        finally:
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
            raise HandoverError(f"the next process said {message} and not that it is {word}; see its log")
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
    """The next process's view of the old one: the sockets, and the word to go."""

    def __init__(self, estate: Estate, channel: socket.socket) -> None:
        self._estate = estate
        self._channel_socket = channel
        self._channel: _Channel | None = None
        self._is_to_be_named = False
        #: The old process was gone before the manager knew of this one, which will be told to end for that.
        self.is_orphan = False

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
        return cls(Estate(sockets, Path(will["bound_path"]) if will["bound_path"] else None), channel)

    def listeners(self) -> Listeners:
        """The gateway's sockets."""
        sockets = self._estate.sockets
        return Listeners(sockets[UNIX_NAME], sockets.get(TCP_NAME), self._estate.bound_path)

    def metrics(self) -> socket.socket | None:
        """The metrics' socket, where there is one."""
        return self._estate.sockets.get(METRICS_NAME)

    async def wait_to_go(self) -> dict[str, Any]:
        """Say that all is ready, and wait for the word: the old process's rate window. EOFError where it is gone."""
        self._channel = await _Channel.over(self._channel_socket)
        await self._channel.tell({"ready": True, "pid": os.getpid()})
        message = await self._channel.hear()
        self._is_to_be_named = bool(message.get("stays"))
        window = message.get("window")
        return window if isinstance(window, dict) else {}

    async def say_serving(self) -> None:
        """Connections are accepted; returns when this is the main process, or the old one is gone."""
        if self._channel is None:
            return
        try:
            await self._channel.tell({"serving": True, "stays": True})
            await self._channel.hear()
        except (EOFError, OSError):
            self.is_orphan = self._is_to_be_named
            self.close()

    def say_followed(self) -> None:
        """Another process serves: the end of this one is not the old one's concern."""
        if self._channel is not None:
            self._channel.say({"followed": True})
            self.close()

    def close(self) -> None:
        """The old process learns that this one is gone."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
