"""Runs on a host: asks its gateway at a steady rate, with one long stream beside, and reports what became of each.

Standard library alone. `FOLDER/streaming` appears with the stream's first piece; `FOLDER/stop` ends the callers, as
`FOLDER/callers-ended` says, and `FOLDER/report.json` is written when the stream has ended too. Times are seconds since
the epoch.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

CALLERS = 4
PAUSE_S = 0.05
METRONOME_S = 0.05
TIMEOUT_S = 30
# Of kernels that measure it.
PRESSURE = Path("/proc/pressure/cpu")


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, *, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self.path = path

    def connect(self) -> None:
        """Called by the base class, on the first request and after a connection's end."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Load:
    """The callers of one host, and what they saw."""

    def __init__(self, path: str, folder: Path) -> None:
        self.path = path
        self.folder = folder
        self.answers: list[tuple[float, float, str]] = []
        self.stall_s = 0.0
        self.starved: list[tuple[float, float]] = []
        self.stream: dict[str, Any] = {}
        self.stopped = threading.Event()

    def call(self, number: int) -> None:
        """Asks until it is told to stop: on one kept connection, or with an odd number on a new one each time."""
        kept = Connection(self.path, timeout_s=TIMEOUT_S)
        serial = 0
        while not self.stopped.wait(PAUSE_S):
            serial += 1
            connection = kept if number % 2 == 0 else Connection(self.path, timeout_s=TIMEOUT_S)
            began_s = time.time()
            outcome = ask(connection, f"caller {number} question {serial}", closes=number % 2 == 1)
            self.answers.append((began_s, time.time(), outcome))

    def watch(self) -> None:
        """Notes what is nobody's fault that is examined here: by how much this machine is late at most, and for how
        long in all somebody has waited for a processor so far."""
        while not self.stopped.is_set():
            if PRESSURE.exists():
                total_us = int(PRESSURE.read_text().split("total=", 1)[1].split()[0])
                self.starved.append((time.time(), total_us / 1e6))
            began_s = time.monotonic()
            time.sleep(METRONOME_S)
            self.stall_s = max(self.stall_s, time.monotonic() - began_s - METRONOME_S)

    def read_stream(self, tokens: int) -> None:
        """One stream from its first piece to its end."""
        connection = Connection(self.path, timeout_s=TIMEOUT_S)
        body = question("a long one", max_tokens=tokens) | {"stream": True}
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        answer = connection.getresponse()
        seen = {"status": answer.status, "pieces": 0, "longest_gap_s": 0.0, "is_whole": False}
        last_s = began_s = time.time()
        try:
            for line in answer:
                if not line.startswith(b"data: "):
                    continue
                now_s = time.time()
                if not seen["pieces"]:
                    began_s = last_s = now_s
                    (self.folder / "streaming").touch()
                seen["is_whole"] = line.strip() == b"data: [DONE]"
                seen["pieces"] += not seen["is_whole"]
                seen["longest_gap_s"] = max(seen["longest_gap_s"], now_s - last_s)
                last_s = now_s
        except (OSError, http.client.HTTPException) as exc:
            seen["error"] = repr(exc)
        self.stream = seen | {"began_s": began_s, "ended_s": last_s}


def question(text: str, *, max_tokens: int) -> dict[str, Any]:
    """The body of a request."""
    messages = [{"role": "user", "content": text}]
    return {"model": "gpt-4.1", "messages": messages, "max_tokens": max_tokens}


def ask(connection: Connection, text: str, *, closes: bool) -> str:
    """The status of an answer that came whole, or what went wrong."""
    headers = {"connection": "close"} if closes else {}
    try:
        body = json.dumps(question(text, max_tokens=1))
        connection.request("POST", "/v1/chat/completions", body, headers)
        answer = connection.getresponse()
        json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as exc:
        connection.close()
        return repr(exc)
    return str(answer.status)


def main(path: str, folder: Path, tokens: int) -> None:
    """Runs until the stop file is there and the stream has ended."""
    load = Load(path, folder)
    callers = [threading.Thread(target=load.call, args=(number,)) for number in range(CALLERS)]
    callers.append(threading.Thread(target=load.watch))
    streams = [threading.Thread(target=load.read_stream, args=(tokens,))] if tokens else []
    for thread in callers + streams:
        thread.start()
    while not (folder / "stop").exists():
        (folder / "answers").write_text(str(len(load.answers)))
        time.sleep(0.1)
    load.stopped.set()
    for thread in callers:
        thread.join()
    (folder / "callers-ended").touch()
    for thread in streams:
        thread.join()
    report = {
        "answers": load.answers,
        "stall_s": load.stall_s,
        "starved": load.starved,
        "stream": load.stream,
    }
    (folder / "report.tmp").write_text(json.dumps(report))
    (folder / "report.tmp").rename(folder / "report.json")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
