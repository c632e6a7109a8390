"""`kill -9` of a program that uses the whole client: what a real server has billed and what the ledger says agree."""

import json
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ai_client.ledger.book import CrashPoint, survive
from ai_client.ledger.budgets import BudgetPlan
from ai_client.ledger.file import LedgerFile
from ai_client.ledger.owner import Fate
from tests.client.calls.client_crasher import BUDGET_NUSD
from tests.client.ledger.ledger_crasher import TOKEN_NUSD, FixedDay

pytestmark = pytest.mark.slow

CONCURRENCY = 8
USED_TOKENS = 30
POINTS = [point for point in CrashPoint if point.startswith(("commit", "end"))]


class Provider:
    """Answers chat requests and remembers what it has executed, whether or not anybody hears the answer."""

    def __init__(self) -> None:
        self.executed: list[str] = []
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                provider.executed.append(self.headers["X-Request-Id"])
                usage = {
                    "prompt_tokens": 10,
                    "completion_tokens": USED_TOKENS - 10,
                    "total_tokens": USED_TOKENS,
                }
                message = {"role": "assistant", "content": "Hi"}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                body = json.dumps({"id": "c", "model": "m", "choices": [choice], "usage": usage}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing on the tests' output."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """A client that was killed is what is tested."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.close()


def run(ledger: Path, provider: Provider, point: str, nth: int) -> int:
    crasher = Path(__file__).with_name("client_crasher.py")
    done = subprocess.run(
        [sys.executable, crasher, ledger, provider.base_url, point, str(nth), str(CONCURRENCY)],
        check=False,
        timeout=60,
        capture_output=True,
        cwd=Path(__file__).parents[3],
        env={"PYTHONPATH": "client/src:."},
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    LedgerFile(ledger, plan=BudgetPlan(), clock=FixedDay(), crash_hook=survive).close(keep_notes=False)
    return done.returncode


@pytest.mark.parametrize("point", POINTS)
def test_a_client_killed_at_this_point_neither_overspends_nor_forgets(
    tmp_path: Path, provider: Provider, point: CrashPoint
) -> None:
    """Killed twice, then run until its budget stops it: each executed request is booked, in whole or exactly."""
    ledger = tmp_path / "ledger.sqlite"
    kills = [run(ledger, provider, point, nth) for nth in (1, 10)]
    assert kills == [-signal.SIGKILL] * 2
    assert run(ledger, provider, "never", 1) == 0
    db = sqlite3.connect(ledger)
    entries = {
        name: (fate, nusd) for name, fate, nusd in db.execute("SELECT request_id, fate, cost_nusd FROM entry")
    }
    held, spent = db.execute(
        "SELECT sum(held_nusd), sum(spent_nusd) FROM total WHERE length(period) = 10"
    ).fetchone()
    db.close()
    cost_nusd = USED_TOKENS * TOKEN_NUSD
    for name in provider.executed:
        fate, nusd = entries[name]
        assert fate in (Fate.SETTLED, Fate.BILLED_UNKNOWN)
        assert nusd == cost_nusd or (fate == Fate.BILLED_UNKNOWN and nusd > cost_nusd)
    assert len(provider.executed) == len(set(provider.executed))
    unsent = [name for name, (_, nusd) in entries.items() if nusd and name not in provider.executed]
    assert len(unsent) <= 2 * CONCURRENCY
    assert held == 0
    assert len(provider.executed) * cost_nusd <= spent <= BUDGET_NUSD
    # The budget is used, too: what the dead held does not stay behind.
    assert spent > BUDGET_NUSD - CONCURRENCY * 200 * TOKEN_NUSD
