"""The options of `ai-client bench`."""

from __future__ import annotations

from pathlib import Path

from ai_client.cli import parser as words
from ai_client.cli.parser import Parser

BENCH_EXAMPLES = """\
examples:
  ai-client bench                         200 requests, 10 in parallel
  ai-client bench --peak-rps 20           twice a peak of 20 requests a second
  ai-client bench --target 'p95_ms<=800' --target 'error_rate<=0.01'
  ai-client bench --against https://other.example/v1 \\
      --against-key-file other.key --plot bench.html

It sends real requests that cost real money, up to --max-usd.

exit codes:
  0 targets met, 1 a target missed, 2 nothing could be measured
"""


def add_bench(parser: Parser) -> None:
    """What is sent, and what the result is held to."""
    _add_load(parser)
    _add_judgement(parser)


def _add_load(parser: Parser) -> None:
    add = parser.add_argument
    add("--requests", type=words.positive, default=200, metavar="N", help="requests to send (default: 200)")
    add("--at-once", type=words.positive, default=10, metavar="N", help="requests in parallel (default: 10)")
    add("--peak-rps", type=words.rate, metavar="N", help="your peak rate: send requests at a multiple of it")
    add("--multiple", type=words.rate, default=2.0, metavar="X", help="multiple of --peak-rps (default: 2)")
    add("--model", help="model to ask (default: [models] default)")
    add(
        "--max-tokens",
        type=words.positive,
        default=16,
        metavar="N",
        help="longest answer, in tokens (default: 16)",
    )
    add("--stream", action="store_true", help="stream the answers")
    add(
        "--repeat",
        type=words.share,
        default=0.2,
        metavar="SHARE",
        help="share of requests that repeat (default: 0.2)",
    )


def _add_judgement(parser: Parser) -> None:
    add = parser.add_argument
    add(
        "--max-usd",
        type=words.dollars,
        default=1.0,
        metavar="USD",
        help="most to spend at each provider (default: 1)",
    )
    add(
        "--target",
        action="append",
        type=words.value(_target),
        default=[],
        metavar="NAME<=N",
        help="exit with 1 if missed, such as 'p95_ms<=800'",
    )
    add("--against", type=words.url, metavar="URL", help="base URL of a provider to compare with")
    add(
        "--against-key-file",
        type=Path,
        metavar="FILE",
        help="key for --against (default: from the environment)",
    )
    add("--plot", type=Path, metavar="FILE.html", help="write a page with charts")
    add("--seed", type=int, metavar="N", help="send the same requests as an earlier run")


def _target(text: str) -> object:
    from ai_client.bench.targets import parse  # noqa: PLC0415  only where a target is given

    return parse(text)
