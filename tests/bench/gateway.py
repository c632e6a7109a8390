"""The gateway beside bare ASGI with aiohttp, nginx and the litellm proxy: `python -m tests.bench.gateway`.

Each contender runs in a process of its own before the same target; callers are in another one. They take turns,
several rounds of some seconds, and the best round of each counts: on a machine with other work the best says what a
thing costs, the average what else was going on. CPU is that of the contender's process. "all on": limits, cache
(missed and written), ledger with budgets, audit trail, metrics, retries, breaker.
"""

import argparse
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

KEY = "hs_test_0123456789abcdef"
TOKEN = "a-token-for-the-bench"
START_S = 60.0


@dataclass(frozen=True)
class Contender:
    """A gateway that runs. `address` is what callers connect to."""

    name: str
    address: str
    pid: int
    token: str = TOKEN


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def cpu_s(pid: int) -> float:
    """Of a process and its threads; children (nginx's workers) are added."""
    total = 0.0
    for child in [pid, *children(pid)]:
        values = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        total += (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")
    return total


def children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def rss_mb(pid: int) -> float:
    [line] = [
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")
    ]
    return int(line.split()[1]) / 1024


@contextmanager
def running(
    command: list[str], *, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def wait_for(address: str, process: subprocess.Popen[str]) -> None:
    """Until it accepts."""
    ends_s = time.monotonic() + START_S
    while time.monotonic() < ends_s and process.poll() is None:
        family = socket.AF_INET if address.isdigit() else socket.AF_UNIX
        with socket.socket(family) as sock:
            if sock.connect_ex(("127.0.0.1", int(address)) if address.isdigit() else address) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"{process.args} does not accept on {address}")


def start_ours(stack: ExitStack, folder: Path, upstream: str) -> list[Contender]:
    port, metrics = free_port(), free_port()
    for name in ("cache", "log"):
        (folder / name).mkdir()
    (folder / "key").write_text(KEY)
    (folder / "ai-client.conf").write_text(
        f"[api]\nbase_url = {upstream}\nconnection_pool_size = 600\n"
        f"[performance]\nrate_limit = 10000000\ntoken_limit = 10000000000\nmax_concurrent_requests = 600\n"
        f"[caching]\ncache_dir = {folder}/cache\n[logging]\nlog_dir = {folder}/log\n"
        f"[gateway]\nsocket = {folder}/gateway.sock\nport = {port}\n[monitoring]\nmetrics_port = {metrics}\n"
        f"[budget]\ndaily_usd = 100000000\nmonthly_usd = 100000000\n"
        f"[tenant bench]\ntoken_sha256 = {hashlib.sha256(TOKEN.encode()).hexdigest()}\n"
    )
    command = [sys.executable, "-m", "ai_client.cli", "serve", "--config", str(folder / "ai-client.conf")]
    process = stack.enter_context(running([*command, "--key-file", str(folder / "key")]))
    wait_for(str(port), process)
    return [
        Contender("ai-client, all on, socket", f"{folder}/gateway.sock", process.pid),
        Contender("ai-client, all on, TCP", str(port), process.pid),
    ]


def start_bare(stack: ExitStack, upstream: str, *, python: str) -> Contender:
    port = free_port()
    process = stack.enter_context(running([python, "-m", "tests.bench.gateway_bare", upstream, str(port)]))
    wait_for(str(port), process)
    return Contender("bare ASGI + aiohttp", str(port), process.pid)


def start_nginx(stack: ExitStack, folder: Path, upstream: str) -> Contender | None:
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None:
        return None
    port = free_port()
    host = upstream.removeprefix("http://").removesuffix("/v1")
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log /dev/null;\n"
        f"events {{ worker_connections 4096; }}\nhttp {{ access_log off; client_body_temp_path {folder}/body;\n"
        f"proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;\n"
        f"scgi_temp_path {folder}/s; upstream u {{ server {host}; keepalive 600; }}\n"
        f"server {{ listen 127.0.0.1:{port}; keepalive_requests 100000000; location / {{ proxy_pass http://u;\n"
        f'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }} }} }}\n'
    )
    process = stack.enter_context(running([nginx, "-c", str(folder / "nginx.conf"), "-p", str(folder)]))
    wait_for(str(port), process)
    return Contender("nginx, passing on", str(port), process.pid)


def start_litellm(stack: ExitStack, folder: Path, upstream: str, *, python: str) -> Contender:
    port = free_port()
    (folder / "litellm.yaml").write_text(
        f"model_list:\n  - model_name: gpt-4.1\n    litellm_params:\n      model: openai/gpt-4.1\n"
        f"      api_base: {upstream}\n      api_key: {KEY}\n"
    )
    command = [str(Path(python).with_name("litellm")), "--config", str(folder / "litellm.yaml")]
    options = ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1", "--telemetry", "False"]
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    process = stack.enter_context(running([*command, *options], environment=environment))
    wait_for(str(port), process)
    return Contender("litellm proxy", str(port), process.pid)


def measure(contender: Contender, *, concurrency: int, seconds: float, is_streamed: bool) -> dict[str, float]:
    """One round."""
    began_s = cpu_s(contender.pid)
    words = [contender.address, str(concurrency), str(seconds), contender.token]
    command = [sys.executable, "-m", "tests.bench.gateway_load", *words, *(["stream"] if is_streamed else [])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    row: dict[str, float] = json.loads(done.stdout)
    return row | {"cpu_us": (cpu_s(contender.pid) - began_s) / row["count"] * 1e6}


def best(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The most requests a second, and the least of everything else."""
    return {
        name: max(row[name] for row in rounds)
        if name in ("per_s", "failed")
        else min(row[name] for row in rounds)
        for name in rounds[0]
    }


def compare(
    contenders: list[Contender], *, concurrency: int, seconds: float, rounds: int, is_streamed: bool
) -> None:
    """One table; the first contender is the yardstick."""
    kind = "streams of 20 chunks" if is_streamed else "whole answers"
    print(f"\n{kind}, {concurrency} at once, best of {rounds} rounds of {seconds:g} s")
    print(
        f"{'':28}{'a second':>10}{'CPU µs':>9}{'p50 ms':>9}{'p99 ms':>9}{'first byte ms':>15}"
        f"{'× yardstick':>13}{'failed':>8}"
    )
    found: dict[str, list[dict[str, float]]] = {each.name: [] for each in contenders}
    for _ in range(rounds):
        for each in contenders:
            row = measure(each, concurrency=concurrency, seconds=seconds, is_streamed=is_streamed)
            found[each.name].append(row)
    yardstick = best(found[contenders[0].name])["per_s"]
    for name, rows in found.items():
        row = best(rows)
        print(
            f"{name:28}{row['per_s']:10.0f}{row['cpu_us']:9.0f}{row['p50_ms']:9.3f}{row['p99_ms']:9.2f}"
            f"{row['first_byte_p50_ms']:15.3f}{row['per_s'] / yardstick:13.2f}{row['failed']:8.0f}"
        )


def soak(contender: Contender, *, requests: int) -> None:
    """Memory after many requests, looked at ten times."""
    print(f"\nmemory of {contender.name} in MB, over {requests:,} requests")
    sent, looked = 0, 0
    while sent < requests:
        row = measure(contender, concurrency=50, seconds=5.0, is_streamed=False)
        sent += int(row["count"])
        if sent * 10 // requests > looked:
            looked = sent * 10 // requests
            print(f"{sent:>12,}{rss_mb(contender.pid):10.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--concurrency", type=int, nargs="*", default=[1, 50])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--soak", type=int, default=0, metavar="REQUESTS", help="1000000 for the memory row")
    parser.add_argument("--peers-python", help="an interpreter that has litellm's proxy and uvicorn")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        target = stack.enter_context(running([sys.executable, "-m", "tests.bench.target", "0"]))
        assert target.stdout is not None
        upstream = f"http://127.0.0.1:{target.stdout.readline().strip()}/v1"
        ours = start_ours(stack, folder, upstream)
        contenders = [start_bare(stack, upstream, python=options.peers_python or sys.executable), *ours]
        nginx = start_nginx(stack, folder, upstream)
        if nginx is not None:
            contenders.append(nginx)
        slow = []
        if options.peers_python:
            slow.append(start_litellm(stack, folder, upstream, python=options.peers_python))
        for is_streamed in (False, True):
            for concurrency in options.concurrency:
                compare(
                    contenders + slow,
                    concurrency=concurrency,
                    seconds=options.seconds,
                    rounds=options.rounds,
                    is_streamed=is_streamed,
                )
        if options.soak:
            soak(ours[0], requests=options.soak)


if __name__ == "__main__":
    main()
