"""The command line: its options, its help, and which module runs what."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from datetime import date
from pathlib import Path
from typing import TypeAlias

from ai_client import __version__

DEFAULT_CONFIG = "/etc/ai-client/ai-client.conf"
CONFIG_VARIABLE = "AI_CLIENT_CONFIG"
EXIT_USAGE = 2

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_EXAMPLES = """\
examples:
  ai-client --health-check            is everything fine on this host?
  ai-client config check              is the configuration file right?
  ai-client serve                     run the gateway in the foreground
  ai-client reload                    make the running service read key and configuration anew
  ai-client chat what is a quota?     ask a model
  ai-client bench --plot bench.html   measure the service
  ai-client usage --by day,model      what was spent
  ai-client simulate --port 8900      a provider to try against
"""


def build() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="ai-client",
        description="Concurrency-controlled client and local gateway for OpenAI-compatible AI APIs.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-V", "--version", action="version", version=f"ai-client {__version__}")
    parser.add_argument("--health-check", action="store_true", help="check this host; exit code 0 or 1")
    _add_shared(parser, with_defaults=True)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    shared = argparse.ArgumentParser(add_help=False)
    _add_shared(shared, with_defaults=False)
    commands.add_parser("serve", parents=[shared], help="run the gateway")
    commands.add_parser("reload", parents=[shared], help="make the running service read key and config anew")
    config = commands.add_parser("config", parents=[shared], help="look at the configuration")
    config.add_argument("action", choices=["check"], help="check the file and say all that is wrong with it")
    _add_chat(commands.add_parser("chat", parents=[shared], help="ask a model"))
    completion = commands.add_parser("completion", help="print a completion script for a shell")
    completion.add_argument("shell", choices=["bash", "zsh", "fish"])
    _add_bench(commands, shared)
    _add_usage(commands.add_parser("usage", parents=[shared], help="what was spent"))
    audit = commands.add_parser("audit", parents=[shared], help="look at the audit trail")
    audit.add_argument("action", choices=["verify"], help="find lines that were changed or removed")
    audit.add_argument("--folder", type=Path, help="default: [logging] log_dir")
    _add_batch(commands.add_parser("batch", help="work through files of requests"), shared)
    _add_simulate(commands.add_parser("simulate", parents=[shared], help="run the provider simulator"))
    return parser


def _add_shared(parser: argparse.ArgumentParser, *, with_defaults: bool) -> None:
    """Options that stand before or after the command: the later parser must not reset the earlier one's."""

    def default(value: object) -> object:
        return value if with_defaults else argparse.SUPPRESS

    config = Path(os.environ.get(CONFIG_VARIABLE, DEFAULT_CONFIG))
    parser.add_argument(
        "--config", type=Path, default=default(config), metavar="FILE", help="default: %(default)s"
    )
    parser.add_argument(
        "--key-file", type=Path, default=default(None), metavar="FILE", help="the upstream's key"
    )
    parser.add_argument(
        "--socket", type=Path, default=default(None), metavar="FILE", help="the service's socket"
    )
    parser.add_argument("--json", action="store_true", default=default(False), help="answer in JSON")


_BATCH_EXAMPLES = """\
examples:
  ai-client batch run requests.jsonl -o answers.jsonl
  ai-client batch run requests.jsonl -o answers.jsonl --max-usd 5
  ai-client batch run requests.jsonl -o answers.jsonl --retry-failed

A line of the input: {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {...}}
The same command again goes on where the last one stopped, however that ended.
exit codes: 0 all answered, 1 some lines failed, 2 a file can't be used, 3 budget or cap reached, 4 no gateway
"""


def _add_batch(parser: argparse.ArgumentParser, shared: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    run_parser = actions.add_parser(
        "run",
        parents=[shared],
        help="answer every line of a file",
        epilog=_BATCH_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run_parser.add_argument("source", type=Path, metavar="IN.jsonl")
    run_parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.jsonl")
    run_parser.add_argument("--errors", type=Path, metavar="FILE", help="default: OUT.jsonl.errors")
    run_parser.add_argument("--at-once", type=_positive, default=64, metavar="N", help="default: %(default)s")
    run_parser.add_argument(
        "--max-usd", type=float, metavar="USD", help="stop before the batch can cost more"
    )
    run_parser.add_argument("--retry-failed", action="store_true", help="send lines that failed once more")
    serve = actions.add_parser("serve", parents=[shared], help="work through a spool folder")
    serve.add_argument("--spool", type=Path, metavar="DIR", help="default: [batch] spool_dir")
    serve.add_argument("--workers", type=_positive, default=2, metavar="N", help="files at once (default: 2)")
    serve.add_argument(
        "--at-once", type=_positive, default=32, metavar="N", help="lines at once of each (default: 32)"
    )
    serve.add_argument("--once", action="store_true", help="end when the folder is empty")


def _add_chat(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "text", nargs="*", help="the question; a conversation where there is none; - reads stdin"
    )
    parser.add_argument("--model", help="default: [models] default")
    parser.add_argument("--system", metavar="TEXT", help="what the model is told first")
    parser.add_argument("--max-tokens", type=_positive, metavar="N")
    parser.add_argument(
        "--priority", type=int, choices=range(10), default=5, metavar="0-9", help="default: 5"
    )


_BENCH_EXAMPLES = """\
examples:
  ai-client bench                                       200 requests, 10 at once, by this host's service
  ai-client bench --peak-rps 20                         at twice a peak of 20 a second, whatever the answers do
  ai-client bench --target 'p95_ms<=800' --target 'error_rate<=0.01'
  ai-client bench --against https://other.example/v1 --against-key-file other.key --plot bench.html

It sends real requests, which cost real money: no more than --max-usd.
exit codes: 0 targets met, 1 a target missed, 2 it could not be measured
"""


def _add_bench(commands: _Commands, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "bench",
        parents=[shared],
        help="measure the service, and a second provider beside it",
        epilog=_BENCH_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--requests", type=_positive, default=200, metavar="N", help="default: %(default)s")
    parser.add_argument("--at-once", type=_positive, default=10, metavar="N", help="default: %(default)s")
    parser.add_argument("--peak-rps", type=float, metavar="N", help="send at a rate: a multiple of this peak")
    parser.add_argument("--multiple", type=float, default=2.0, metavar="X", help="of the peak (default: 2)")
    parser.add_argument("--model", help="default: [models] default")
    parser.add_argument("--max-tokens", type=_positive, default=16, metavar="N", help="default: %(default)s")
    parser.add_argument("--stream", action="store_true", help="ask for streams")
    parser.add_argument(
        "--repeat", type=float, default=0.2, metavar="SHARE", help="of repeated requests (default: 0.2)"
    )
    parser.add_argument(
        "--max-usd", type=float, default=1.0, metavar="USD", help="default: %(default)s a provider"
    )
    parser.add_argument(
        "--target", action="append", default=[], metavar="NAME<=N", help="such as p95_ms<=800"
    )
    parser.add_argument("--against", metavar="URL", help="a second provider's base_url, asked directly")
    parser.add_argument(
        "--against-key-file", type=Path, metavar="FILE", help="its key; else the environment's"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.html", help="draw it")
    parser.add_argument("--seed", type=int, help="the same requests again")


def _add_usage(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--by", default="model", metavar="LIST", help="day, month, tenant, model, tag:NAME (default: model)"
    )
    parser.add_argument("--days", type=_positive, default=30, help="how many, today included (default: 30)")
    parser.add_argument("--since", type=date.fromisoformat, metavar="DAY", help="such as 2026-11-24")
    parser.add_argument("--until", type=date.fromisoformat, metavar="DAY", help="default: today")
    parser.add_argument("--ledger", type=Path, metavar="FILE", help="default: the service's")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError("must be 1 or more")
    return value


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8900, help="0 for any free one (default: %(default)s)")
    parser.add_argument("--rpm", type=int, help="requests a minute and key; no limit where not given")
    parser.add_argument("--tpm", type=int, help="tokens a minute and key; no limit where not given")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="median time to the first byte")
    parser.add_argument("--latency-p99-ms", type=float, help="its 99th percentile")
    parser.add_argument("--token-ms", type=float, default=0.0, help="time between two events of a stream")
    parser.add_argument("--tls-cert", type=Path, help="serve TLS with this certificate chain")
    parser.add_argument("--tls-key", type=Path, help="and this private key")


def run(arguments: list[str]) -> int:
    """Parse and run: the exit code."""
    parser = build()
    options = parser.parse_args(arguments)
    if options.health_check:
        name = "health"
    elif options.command is not None:
        name = options.command
    else:
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    module = importlib.import_module(f"ai_client.cli.{name}")
    code = module.run(options)
    if not isinstance(code, int):
        raise TypeError(f"ai_client.cli.{name}.run must return an exit code")
    return code
