"""Options of the commands about batches that all batch hosts work through together."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from ai_client.cli.parser import Parser

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

_SUBMIT_EXAMPLES = """\
examples:
  sudo ai-client batch submit requests.jsonl
  sudo ai-client batch submit requests.jsonl --name weekly

All batch hosts that share the quota answer the lines. A host must have the
[coordination] engine and the provider's key. Run the same command again to
continue an interrupted submission, on any host that has the file.

exit codes:
  0 all lines are submitted, 2 something can't be used, 3 it was cancelled,
  4 the engine does not answer
"""

_FETCH_EXAMPLES = """\
examples:
  sudo ai-client batch fetch requests -o answers.jsonl
  sudo ai-client batch fetch requests -o answers.jsonl --wait

Fetches what is answered so far, on any host, in no order. Fetched results
leave the engine; after the last one the batch is removed. Run the same
command again to continue.

exit codes:
  0 every line is answered, 1 some lines failed, 2 something can't be used,
  3 some results are still to come, 4 the engine does not answer,
  5 the output can't be written
"""

_CANCEL_EXAMPLES = """\
examples:
  sudo ai-client batch cancel requests
  sudo ai-client batch cancel requests --discard

No further line is sent. Results so far can be fetched, unless discarded.
"""


def add_shared_batch(add: Callable[..., Parser], shared: Parser) -> None:
    """`submit`, `status`, `fetch` and `cancel`."""
    submit = add("submit", shared, "let all batch hosts answer a file", _SUBMIT_EXAMPLES)
    submit.add_argument("source", type=Path, metavar="IN.jsonl", help="the requests")
    submit.add_argument("--name", metavar="NAME", help="name of the batch (default: that of the file)")
    status = add("status", shared, "show shared batches")
    status.add_argument("name", type=batch_name, nargs="?", metavar="NAME", help="only this one")
    fetch = add("fetch", shared, "take the results of a shared batch", _FETCH_EXAMPLES)
    fetch.add_argument("name", type=batch_name, metavar="NAME", help="the batch")
    fetch.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT.jsonl", help="where the answers go"
    )
    fetch.add_argument(
        "--errors", type=Path, metavar="FILE", help="where failures go (default: OUT.jsonl.errors)"
    )
    fetch.add_argument("--wait", action="store_true", help="until every line is answered")
    fetch.add_argument("--take-over", action="store_true", help="what another output did not fetch")
    cancel = add("cancel", shared, "send no more lines of a shared batch", _CANCEL_EXAMPLES)
    cancel.add_argument("name", type=batch_name, metavar="NAME", help="the batch")
    cancel.add_argument("--discard", action="store_true", help="remove it with its results")


def batch_name(text: str) -> str:
    """A name of a batch."""
    if not _NAME.fullmatch(text):
        wanted = "write up to 100 letters, digits, '.', '_' or '-', the first a letter or digit"
        raise argparse.ArgumentTypeError(f"{text!r}: {wanted}")
    return text


def name_of(source: Path) -> str:
    """The name of a batch after its file."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", source.stem).lstrip("._-")[:100] or "batch"
