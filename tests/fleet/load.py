"""Requests through a host's gateway while something happens to the host: run on the host itself, over its socket."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.fleet.clones import Clone

# Sends from several threads, each over a connection of its own, until its standard input ends; then prints how many
# were answered, and what failed.
SENDER = """
import http.client, json, socket, sys, threading, time
class Gateway(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect("/run/ai-client/gateway.sock")
stop, lock = threading.Event(), threading.Lock()
seen = {"answered": 0, "failed": [], "slowest_s": 0.0}
def ask(connection, text):
    body = {"model": "gpt-4.1", "messages": [{"role": "user", "content": text}], "max_tokens": 4}
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read().decode()
        return None if answer.status == 200 else f"{answer.status} {text[:200]}"
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return repr(error)
def send(number):
    connection = Gateway("localhost", timeout=30)
    due = time.monotonic() + INTERVAL_S * number / THREADS
    while not stop.wait(max(0, due - time.monotonic())):
        began = time.monotonic()
        due = max(due + INTERVAL_S, began)
        failure = ask(connection, f"{number} {time.time()}")
        with lock:
            seen["answered"] += failure is None
            seen["slowest_s"] = max(seen["slowest_s"], time.monotonic() - began)
            seen["failed"] += [failure] if failure else []
threads = [threading.Thread(target=send, args=(n,)) for n in range(THREADS)]
[t.start() for t in threads]
print("sending", flush=True)
sys.stdin.read()
stop.set()
[t.join() for t in threads]
print(json.dumps(seen))
"""


@dataclass
class Load:
    """What became of the requests that were sent to one host.

    Attributes:
        answered: how many were answered with status 200.
        failed: what each of the others got.
        slowest_s: seconds that the slowest took.
    """

    answered: int = 0
    failed: list[str] = field(default_factory=list)
    slowest_s: float = 0.0


@contextmanager
def under_load(clone: Clone, host: str, *, per_second: int, threads: int = 16) -> Iterator[Load]:
    """Sends requests through a host's gateway for as long as the block runs; the result is complete after it."""
    script = SENDER.replace("THREADS", str(threads)).replace("INTERVAL_S", str(threads / per_second))
    argv = ["ssh", "-F", clone.ssh_config(), host, f"python3 -I -c {_quoted(script)}"]
    load = Load()
    with subprocess.Popen(
        argv, env=clone.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as sender:
        assert sender.stdout is not None
        assert sender.stdout.readline() == "sending\n"
        try:
            yield load
        finally:
            rest, _ = sender.communicate("", timeout=60)
    seen = json.loads(rest)
    load.answered, load.failed, load.slowest_s = seen["answered"], seen["failed"], seen["slowest_s"]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
