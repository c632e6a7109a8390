"""The command line: its options, its help, and which module runs what."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from functools import partial
from pathlib import Path
from typing import TypeAlias

from ai_client import __version__
from ai_client.cli import parser as words
from ai_client.cli.bench_arguments import BENCH_EXAMPLES, add_bench
from ai_client.cli.host import CONFIG_VARIABLE, DEFAULT_CONFIG
from ai_client.cli.parser import EXIT_USAGE, Parser
from ai_client.cli.shared_batch_arguments import add_shared_batch
from ai_client.settings import ConfigError, kinds

LONGEST_DAYS = 3660
#: What `usage` shows where nothing else is asked for.
USAGE_BY = ("model",)
USAGE_DAYS = 30

_Commands: TypeAlias = "argparse._SubParsersAction[Parser]"

_EXAMPLES = """\
examples:
  ai-client serve                     run the gateway in the foreground
  ai-client chat 'What is a quota?'   ask a model
  ai-client --health-check            check everything on this host
  ai-client config check              check the configuration file
  ai-client reload                    load a new key and configuration
  ai-client usage --by day,model      show what was spent
  ai-client bench --plot bench.html   measure the service
  ai-client simulate --port 8900      run a simulated provider

`ai-client COMMAND --help` describes a command.
"""


# Those of `testing.likeness`, which is not loaded for a line of help.
PROVIDERS = (
    "openai",
    "azure",
    "anthropic",
    "deepseek",
    "gemini",
    "mistral",
    "xai",
    "groq",
    "moonshot",
    "openrouter",
    "bedrock",
    "vertex",
    "vllm",
    "llamacpp",
    "ollama",
    "holysheep",
)


def build() -> Parser:
    """The parser of the whole command line."""
    parser = Parser(
        prog="ai-client",
        description="Client and local gateway for OpenAI-compatible APIs: one queue, one quota,\n"
        "one cache and one ledger for every program on this host.",
        epilog=_EXAMPLES,
    )
    parser.add_argument(
        "-V", "--version", action="version", version=f"ai-client {__version__}", help="print the version"
    )
    parser.add_argument("--health-check", action="store_true", help="check this host; exit code 0 or 1")
    _add_shared(parser, with_defaults=True)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    shared = Parser(add_help=False)
    _add_shared(shared, with_defaults=False)
    _add_serve(commands, shared)
    _add(commands, "reload", shared, "load the key and configuration again, without a restart")
    config = _add(commands, "config", shared, "check the configuration")
    config.add_argument("action", choices=["check"], metavar="check", help="list every mistake in the file")
    _add_chat(_add(commands, "chat", shared, "ask a model"))
    completion = _add(commands, "completion", None, "print a completion script for your shell")
    completion.add_argument(
        "shell", choices=["bash", "zsh", "fish"], metavar="SHELL", help="bash, zsh or fish"
    )
    what = "measure the service, or compare it with a provider"
    add_bench(_add(commands, "bench", shared, what, BENCH_EXAMPLES))
    _add_usage(_add(commands, "usage", shared, "show what was spent"))
    _add_fleet(_add(commands, "fleet", shared, "show the hosts that share the quota", _FLEET_EXAMPLES))
    _add_audit(_add(commands, "audit", shared, "check the audit trail"))
    _add_batch(_add(commands, "batch", None, "process files of requests"), shared)
    _add_simulate(_add(commands, "simulate", shared, "run the provider simulator"))
    return parser


def _add_fleet(fleet: Parser) -> None:
    fleet.add_argument(
        "--forget", metavar="HOST", help="remove a host that is gone for good, and free its share"
    )


def _add_audit(audit: Parser) -> None:
    audit.add_argument(
        "action", choices=["verify"], metavar="verify", help="find lines that were changed or removed"
    )
    audit.add_argument("--folder", type=Path, metavar="DIR", help="the trail (default: [logging] log_dir)")
    audit.add_argument(
        "--anchor",
        action="append",
        default=[],
        metavar="SEQ:HASH",
        help="a line's number and hash, from a copy kept elsewhere",
    )
    audit.add_argument(
        "--anchors",
        type=Path,
        metavar="FILE",
        help="file with anchors or audit_anchor log lines (-: stdin)",
    )


def _add(commands: _Commands, name: str, shared: Parser | None, help_: str, epilog: str = "") -> Parser:
    description = f"{help_[0].upper()}{help_[1:]}."
    parents = [] if shared is None else [shared]
    return commands.add_parser(name, parents=parents, help=help_, description=description, epilog=epilog)


def _add_shared(parser: Parser, *, with_defaults: bool) -> None:
    """Options that stand before or after the command: the later parser must not reset the earlier one's."""

    def default(value: object) -> object:
        return value if with_defaults else argparse.SUPPRESS

    config = os.environ.get(CONFIG_VARIABLE) or str(DEFAULT_CONFIG)
    group = parser.add_argument_group("for every command")
    group.add_argument(
        "--config",
        type=Path,
        default=default(None),
        metavar="FILE",
        help=f"configuration (default: {config.replace('%', '%%')})",
    )
    group.add_argument(
        "--key-file", type=Path, default=default(None), metavar="FILE", help="file with the provider's key"
    )
    group.add_argument(
        "--socket", type=Path, default=default(None), metavar="FILE", help="socket of the gateway"
    )
    group.add_argument("--json", action="store_true", default=default(False), help="print JSON")


_SERVE_EXAMPLES = """\
examples:
  ai-client serve                       defaults, files below your home folder
  AI_CLIENT_API_KEY=... ai-client serve
  ai-client serve --base-url http://127.0.0.1:8900/v1

Without a configuration and a key, the built-in simulator answers: nothing
leaves this host.
"""


def _add_serve(commands: _Commands, shared: Parser) -> None:
    parser = _add(commands, "serve", shared, "run the gateway in the foreground", _SERVE_EXAMPLES)
    parser.add_argument(
        "--base-url", type=words.url, metavar="URL", help="provider to ask (default: [api] base_url)"
    )
    parser.add_argument(
        "--port", type=words.port, metavar="N", help="TCP port, 0 for none (default: [gateway] port)"
    )


_FLEET_EXAMPLES = """\
examples:
  sudo ai-client fleet                    show all hosts, from any host
  sudo ai-client fleet --json
  sudo ai-client fleet --forget web-7     remove a host that is gone for good

Hosts report these values themselves, to the engine of [coordination].

exit codes:
  0 shown or removed, 1 the engine or the service does not answer,
  3 not removed: the host may still be using its share
"""

_BATCH_EXAMPLES = """\
examples:
  ai-client batch run requests.jsonl -o answers.jsonl
  ai-client batch run requests.jsonl -o answers.jsonl --max-usd 5
  ai-client batch run requests.jsonl -o answers.jsonl --retry-failed

A line of the input:
  {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions",
   "body": {...}}
Run the same command again to continue an interrupted batch.

exit codes:
  0 every line answered, 1 some lines failed, 2 a file can't be used,
  3 budget or cap reached, 4 no gateway, 5 the output can't be written,
  6 the provider's account has no credit, or no quota for a long time
"""


def _add_batch(parser: Parser, shared: Parser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser)
    run_parser = _add(actions, "run", shared, "answer every line of a file", _BATCH_EXAMPLES)
    run_parser.add_argument("source", type=Path, metavar="IN.jsonl", help="the requests")
    run_parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT.jsonl", help="where the answers go"
    )
    run_parser.add_argument(
        "--errors", type=Path, metavar="FILE", help="where failures go (default: OUT.jsonl.errors)"
    )
    run_parser.add_argument(
        "--at-once", type=words.positive, default=64, metavar="N", help="lines in parallel (default: 64)"
    )
    run_parser.add_argument(
        "--max-usd", type=words.dollars, metavar="USD", help="stop before the batch can cost more than this"
    )
    run_parser.add_argument("--retry-failed", action="store_true", help="send failed lines again")
    serve = _add(actions, "serve", shared, "process a folder of files, and batches that hosts share")
    serve.add_argument("--spool", type=Path, metavar="DIR", help="the folder (default: [batch] spool_dir)")
    serve.add_argument(
        "--workers", type=words.positive, default=2, metavar="N", help="files in parallel (default: 2)"
    )
    serve.add_argument(
        "--at-once",
        type=words.positive,
        default=32,
        metavar="N",
        help="lines in parallel for each file (default: 32)",
    )
    serve.add_argument("--once", action="store_true", help="stop when the folder is empty")
    add_shared_batch(partial(_add, actions), shared)


def _add_chat(parser: Parser) -> None:
    parser.add_argument(
        "text", nargs="*", help="the question; without one, a conversation; - reads standard input"
    )
    parser.add_argument("--model", help="model to ask (default: [models] default)")
    parser.add_argument("--system", metavar="TEXT", help="system prompt")
    parser.add_argument("--max-tokens", type=words.positive, metavar="N", help="longest answer, in tokens")
    parser.add_argument(
        "--priority",
        type=words.value(kinds.integer(least=0, most=9)),
        default=5,
        metavar="0-9",
        help="0 is the most urgent (default: 5)",
    )


def _add_usage(parser: Parser) -> None:
    parser.add_argument(
        "--by",
        type=_dimensions,
        default=USAGE_BY,
        metavar="LIST",
        help="group by day, month, tenant, model, tag:NAME (default: model)",
    )
    parser.add_argument(
        "--days",
        type=words.value(kinds.integer(least=1, most=LONGEST_DAYS)),
        default=USAGE_DAYS,
        metavar="N",
        help="days to show, including today (default: 30)",
    )
    parser.add_argument(
        "--since", type=words.value(words.day), metavar="DAY", help="first day, such as 2026-11-24"
    )
    parser.add_argument(
        "--until", type=words.value(words.day), metavar="DAY", help="last day (default: today)"
    )
    parser.add_argument("--ledger", type=Path, metavar="FILE", help="the ledger (default: the service's)")
    parser.add_argument(
        "--fleet", action="store_true", help="today and this month, for every host that shares the quota"
    )


def _dimensions(text: str) -> tuple[str, ...]:
    from ai_client.ledger.usage import DIMENSIONS, TAG_PREFIX  # noqa: PLC0415  only where they are given

    found = tuple(part.strip() for part in text.split(",") if part.strip())
    unknown = [part for part in found if part not in DIMENSIONS and not part.startswith(TAG_PREFIX)]
    if unknown or not found:
        given = ", ".join(map(repr, unknown or [text]))
        raise argparse.ArgumentTypeError(
            f"can't group by {given}; choose from {', '.join(DIMENSIONS)}, {TAG_PREFIX}NAME"
        )
    return found


def _add_simulate(parser: Parser) -> None:
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    add("--port", type=words.port, default=8900, metavar="N", help="0 for any free port (default: 8900)")
    add("--rpm", type=words.positive, metavar="N", help="requests per minute and key (default: no limit)")
    add("--tpm", type=words.positive, metavar="N", help="tokens per minute and key (default: no limit)")
    add(
        "--latency-ms",
        type=words.milliseconds,
        default=0.0,
        metavar="MS",
        help="median time to the first byte",
    )
    add(
        "--latency-p99-ms",
        type=words.milliseconds,
        metavar="MS",
        help="99th percentile of the time to the first byte",
    )
    add(
        "--token-ms",
        type=words.milliseconds,
        default=0.0,
        metavar="MS",
        help="time between two events in a stream",
    )
    add(
        "--like",
        choices=PROVIDERS,
        metavar="NAME",
        default="",
        help=f"behave as one of: {', '.join(PROVIDERS)}",
    )
    add("--tls-cert", type=Path, metavar="FILE", help="serve TLS with this certificate chain")
    add("--tls-key", type=Path, metavar="FILE", help="private key of --tls-cert")


def run(arguments: list[str]) -> int:
    """Parse and run: the exit code."""
    parser = build()
    options = parser.parse_args(arguments)
    if options.health_check and options.command is not None:
        parser.error(f"--health-check is a command of its own; leave out `{options.command}`")
    if not options.health_check and options.command is None:
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    name = "health" if options.health_check else options.command
    try:
        code = importlib.import_module(f"ai_client.cli.{name}").run(options)
    except ConfigError as exc:
        print(exc, file=sys.stderr)
        return EXIT_USAGE
    if not isinstance(code, int):
        raise TypeError(f"ai_client.cli.{name}.run must return an exit code")
    return code
