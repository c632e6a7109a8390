"""Runs on a host: asks its gateway at a rate that may change, and notes what became of each request and what the
service says of its quota meanwhile.

Standard library alone. `FOLDER/rate` has the requests a second; `FOLDER/stop` ends it, as `FOLDER/ended` says. Lines go
to `FOLDER/answers.jsonl` and `FOLDER/seen.jsonl`. Times are seconds of this machine's monotonic clock, which all its
hosts and its upstream share.
"""

from __future__ import annotations

import http.client
import json
import random
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

DEADLINE_S = 5.0
# Who has no answer by then hangs.
HANG_S = 20.0
_LOOK_S = 1.0
_TICK_S = 0.05
_MOST_AT_ONCE = 200
# Of kernels that measure it: for how long in all somebody has waited for a processor.
_PRESSURE = Path("/proc/pressure/cpu")
_METRICS = ("127.0.0.1", 9090)
_OF_QUOTA = "ai_client_quota_"


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=HANG_S)
        self.path = path

    def connect(self) -> None:
        """Called by the base class."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Callers:
    """What one host asks, and what it hears."""

    def __init__(self, path: str, folder: Path) -> None:
        self.path = path
        self.folder = folder
        self.lock = threading.Lock()
        self.is_over = threading.Event()
        self.stall_s = 0.0

    def note(self, name: str, line: object) -> None:
        """A line of a file."""
        with self.lock, (self.folder / name).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def ask(self, number: int) -> None:
        """One request, on a connection of its own."""
        began_s, starved_s = time.monotonic(), starved_so_far_s()
        message = {"role": "user", "content": f"{socket.gethostname()} asks {number}"}
        body = json.dumps({"model": "gpt-4.1", "messages": [message], "max_tokens": 1})
        connection = Connection(self.path)
        try:
            headers = {"connection": "close", "x-ai-deadline": f"{DEADLINE_S}"}
            connection.request("POST", "/v1/chat/completions", body, headers)
            answer = connection.getresponse()
            said = json.loads(answer.read())
            outcome = str(answer.status) if answer.status == 200 else f"{answer.status} {_code(said)}"
        except (OSError, http.client.HTTPException, ValueError) as exc:
            outcome = f"no answer: {exc!r}"
        finally:
            connection.close()
        self.note("answers.jsonl", [began_s, time.monotonic(), outcome, starved_so_far_s() - starved_s])

    def rate(self) -> float:
        """Requests a second, as they are wanted now."""
        return float((self.folder / "rate").read_text() or 0)

    def run(self) -> None:
        """Asks at random times until it is told to stop; all who ask are answered before it ends."""
        number, next_s = 0, time.monotonic()
        with ThreadPoolExecutor(_MOST_AT_ONCE) as pool:
            while not (self.folder / "stop").exists():
                self.is_over.wait(_TICK_S)
                rate = self.rate()
                while rate > 0 and next_s <= time.monotonic():
                    number += 1
                    pool.submit(self.ask, number)
                    next_s += random.expovariate(rate)
                if rate <= 0:
                    next_s = time.monotonic()
        self.is_over.set()

    def watch(self) -> None:
        """What status page, metrics and health check say, once a second."""
        while not self.is_over.wait(_LOOK_S):
            line: dict[str, Any] = {"at_s": time.monotonic(), "stall_s": self.stall_s}
            self.stall_s = 0.0
            try:
                line["status"] = json.loads(fetched(Connection(self.path), "/status.json"))["coordination"]
                health = json.loads(fetched(Connection(self.path), "/health"))
                line["health"] = health["checks"].get("coordination")
                scraped = fetched(http.client.HTTPConnection(*_METRICS, timeout=HANG_S), "/metrics")
                line["metrics"] = quota_metrics(scraped.decode())
            except (OSError, http.client.HTTPException, ValueError) as exc:
                line["trouble"] = repr(exc)
            self.note("seen.jsonl", line)

    def measure(self) -> None:
        """By how much this machine is late at most: that is nobody's fault that is examined here."""
        while not self.is_over.is_set():
            began_s = time.monotonic()
            self.is_over.wait(_TICK_S)
            self.stall_s = max(self.stall_s, time.monotonic() - began_s - _TICK_S)


def starved_so_far_s() -> float:
    """For how long in all somebody on this machine has waited for a processor; 0 where nobody measures it."""
    if not _PRESSURE.exists():
        return 0.0
    return int(_PRESSURE.read_text().split("total=", 1)[1].split()[0]) / 1e6


def fetched(connection: http.client.HTTPConnection, path: str) -> bytes:
    """The body of an answer, of any status."""
    try:
        connection.request("GET", path, headers={"connection": "close"})
        return connection.getresponse().read()
    finally:
        connection.close()


def quota_metrics(text: str) -> dict[str, float]:
    """Those of the shared quota, without what their names have in common."""
    lines = (line.split() for line in text.splitlines() if line.startswith(_OF_QUOTA))
    return {name.removeprefix(_OF_QUOTA): float(value) for name, value in lines}


def _code(said: Any) -> str:
    """What an error of the service is called; one that has no message is none."""
    error = said["error"]
    if not error["message"]:
        raise ValueError("an error without a message")
    return str(error["code"])


def main(path: str, folder: Path) -> None:
    """Runs until the stop file is there."""
    callers = Callers(path, folder)
    beside = [threading.Thread(target=callers.watch), threading.Thread(target=callers.measure)]
    for thread in beside:
        thread.start()
    callers.run()
    for thread in beside:
        thread.join()
    (folder / "ended").touch()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
