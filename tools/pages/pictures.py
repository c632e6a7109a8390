"""Takes the pictures of the README from the real thing.

The status page: a real service whose callers a simulator answers, in Chromium. Needs root and Chromium, as the service
runs under a host name of its own. The terminal: `make up 2>&1 | tee up.log`, then `tools/pictures --up up.log`.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import httpx

from tools.pages import terminal

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "pictures"
HOST = "web-prod-01"
KEY = "hs_test_for_the_pictures"
LOAD_S = 45
# Name, width and height in pixels, and Blink's number for dark (0) or light (1).
SHOTS = (
    ("status-page", 1120, 900, 1),
    ("status-page-dark", 1120, 900, 0),
    ("status-page-narrow", 400, 2000, 1),
)
ASKED = ("gpt-4.1", "gpt-4.1", "claude-sonnet-4.5", "deepseek-v3.2", "gpt-5-typo")

_CONFIG = """\
[api]
base_url = {base_url}
[caching]
cache_dir = {folder}/cache
[logging]
log_dir = {folder}/log
[gateway]
socket = {folder}/gateway.sock
port = 0
[monitoring]
metrics_port = 0
[performance]
rate_limit = 900
token_limit = 60000
max_concurrent_requests = 8
[budget]
daily_usd = 0.25
monthly_usd = 5
[tenant search]
uid = 1001
[tenant support]
uid = 1002
daily_usd = 0.1
[tenant nightly-reports]
uid = 1003
"""


@contextlib.asynccontextmanager
async def running(*words: str, environment: dict[str, str]) -> AsyncIterator[list[str]]:
    """`ai-client` under the pictures' host name, and what it says up to its status page or first line."""
    script = 'hostname "$0"; exec "$@"'
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--uts", "sh", "-c", script, HOST, sys.executable, "-m", "ai_client.cli", *words),
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None  # noqa: S101  it was asked for
    wanted = "status page" if words[0] == "serve" else "listening on"
    said: list[str] = []
    try:
        while not (said and said[-1].startswith(wanted)):
            line = await asyncio.wait_for(process.stdout.readline(), 30)
            if not line:
                raise SystemExit(f"pictures: `ai-client {words[0]}` ended before it listened")
            said.append(line.decode())
        yield said
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


async def load(socket: Path, *, seconds: float) -> None:
    """Callers of several tenants, for some seconds."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + seconds
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client:

        async def caller(number: int) -> None:
            turn = 0
            while loop.time() < end_s:
                turn += 1
                text = f"question {number} {turn if turn % 4 else 0}"
                body = {
                    "model": ASKED[(number + turn) % (5 if turn % 9 == 0 else 4)],
                    "messages": [{"role": "user", "content": text}],
                    "max_tokens": 24,
                }
                headers = {"x-ai-tenant": ("search", "support", "nightly-reports")[number % 3]}
                await client.post("/v1/chat/completions", json=body, headers=headers)
                await asyncio.sleep(0.05 * (number % 5))

        await asyncio.gather(*(caller(number) for number in range(14)))


def shoot(url: str, out: Path, *, width: int, height: int, scheme: int, home: Path) -> None:
    """One picture."""
    command = [
        *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        *(f"--user-data-dir={home}", f"--window-size={width},{height}", "--virtual-time-budget=3000"),
        *(f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={out}", url),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120)


async def take(folder: Path) -> None:
    """All of them."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for part in ("cache", "log"):
            (work / part).mkdir()
        simulate = ("simulate", "--port", "0", "--latency-ms", "350", "--latency-p99-ms", "1800")
        async with running(*simulate, environment={}) as said:
            config = work / "ai-client.conf"
            config.write_text(_CONFIG.format(base_url=said[0].split()[2], folder=work))
            serve = ("serve", "--config", str(config))
            async with running(*serve, environment={"AI_CLIENT_API_KEY": KEY}) as told:
                url = told[-1].split()[-1]
                callers = asyncio.create_task(load(work / "gateway.sock", seconds=LOAD_S))
                await asyncio.sleep(LOAD_S * 0.6)
                for shot, width, height, scheme in SHOTS:
                    out, home = folder / f"{shot}.png", work / f"browser-{shot}"
                    await asyncio.to_thread(
                        shoot, url, out, width=width, height=height, scheme=scheme, home=home
                    )
                await callers


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or what went wrong."""
    parser = argparse.ArgumentParser(prog="tools/pictures", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where they go (default: docs/pictures)")
    parser.add_argument(
        "--up", type=Path, metavar="LOG", help="draw this output of `make up` instead of the status page"
    )
    options = parser.parse_args(argv)
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.up is None:
        asyncio.run(take(options.folder.absolute()))
        return 0
    try:
        lines = terminal.last_run(options.up.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        why = getattr(exc, "strerror", None) or exc
        parser.error(
            f"--up: {options.up} can't be used: {why}; write it by `make up 2>&1 | tee {options.up}`"
        )
    picture = terminal.svg(
        "make up", lines, title="The last lines of make up: three hosts deployed, and an answer"
    )
    (options.folder / "make-up.svg").write_text(picture, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
