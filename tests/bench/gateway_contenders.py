"""The gateways that are compared: each in one process of its own, before the same upstream."""

import hashlib
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
KEY = "hs_test_0123456789abcdef"
TOKEN = "a-token-for-the-bench"
START_S = 60.0
SLOW_START_S = 180.0


class NotAvailableError(Exception):
    """A contender can't run here; the text says why."""


@dataclass(frozen=True)
class Contender:
    """A gateway that runs. `address` is what callers connect to: a port, or a Unix socket's path."""

    name: str
    address: str
    pid: int
    token: str = TOKEN


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def cpu_s(pid: int) -> float:
    """Of a process and its threads; children (nginx's worker) are added."""
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
    command: list[str], *, environment: dict[str, str] | None = None, is_read: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """The process while the block runs. What it prints goes nowhere unless it is read: a full pipe would stop it."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if is_read else subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(address: str, process: subprocess.Popen[str], *, start_s: float = START_S) -> None:
    """Until it accepts."""
    ends_s = time.monotonic() + start_s
    while time.monotonic() < ends_s and process.poll() is None:
        family = socket.AF_INET if address.isdigit() else socket.AF_UNIX
        with socket.socket(family) as sock:
            if sock.connect_ex(("127.0.0.1", int(address)) if address.isdigit() else address) == 0:
                return
        time.sleep(0.05)
    raise NotAvailableError(f"does not accept on {address} within {start_s:g} s")


def start_upstream(stack: ExitStack) -> tuple[str, Contender]:
    """What all of them ask: its URL, and itself as a contender, to show that it is not what limits them."""
    target = stack.enter_context(running([sys.executable, "-m", "tests.bench.target", "0"], is_read=True))
    assert target.stdout is not None
    port = target.stdout.readline().strip()
    return f"http://127.0.0.1:{port}/v1", Contender("the upstream itself", port, target.pid)


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


def start_nginx(stack: ExitStack, folder: Path, upstream: str) -> Contender:
    """From the distribution's package. Raises NotAvailableError."""
    found = subprocess.run(
        ["tools/packages", "nginx"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    if found.returncode:
        raise NotAvailableError(found.stderr.strip())
    path = f"{found.stdout.strip()}:{os.environ['PATH']}:/usr/sbin"
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
    command = ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)]
    process = stack.enter_context(running(["env", f"PATH={path}", *command]))
    wait_for(str(port), process)
    return Contender("nginx, passing on", str(port), process.pid)


def start_litellm(stack: ExitStack, folder: Path, upstream: str, *, python: str) -> Contender:
    """From the peers' environment. Raises NotAvailableError."""
    program = Path(python).with_name("litellm")
    if not program.exists():
        raise NotAvailableError(f"{program} is missing; run tools/venv bench")
    port = free_port()
    (folder / "litellm.yaml").write_text(
        f"model_list:\n  - model_name: gpt-4.1\n    litellm_params:\n      model: openai/gpt-4.1\n"
        f"      api_base: {upstream}\n      api_key: {KEY}\n"
    )
    command = [str(program), "--config", str(folder / "litellm.yaml"), "--host", "127.0.0.1"]
    options = ["--port", str(port), "--num_workers", "1", "--telemetry", "False"]
    # It does not start without a key of this form.
    token = f"sk-{secrets.token_hex(32)}"
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": token}
    process = stack.enter_context(running([*command, *options], environment=environment))
    wait_for(str(port), process, start_s=SLOW_START_S)
    return Contender("litellm proxy", str(port), process.pid, token)
