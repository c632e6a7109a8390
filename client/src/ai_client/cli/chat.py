"""`ai-client chat`: a question or a conversation, through the gateway's socket."""

from __future__ import annotations

import argparse
import http.client
import json
import sys
from collections.abc import Iterator
from typing import Any

from ai_client.cli.host import socket_of
from ai_client.cli.parser import EXIT_USAGE
from ai_client.cli.service_socket import REMEDY, ServiceUnreachableError, UnixConnection
from ai_client.dialects.sse import SSEParser
from ai_client.dialects.verdict import fault_of
from ai_client.errors import AIClientError

TIMEOUT_S = 600.0
_DIM, _PLAIN = "\033[2m", "\033[0m"

Messages = list[dict[str, str]]


class _RefusedError(Exception):
    """The service answered with an error; the text is its."""


def run(options: argparse.Namespace) -> int:
    """0, 1 where an answer did not come whole, or 2 where nothing is asked."""
    messages: Messages = [{"role": "system", "content": options.system}] if options.system else []
    text = " ".join(options.text)
    is_piped = text == "-" or (not text and not sys.stdin.isatty())
    try:
        if is_piped:
            text = sys.stdin.buffer.read().decode()
        if text.strip():
            _ask(options, [*messages, {"role": "user", "content": text}])
            return 0
        if is_piped:
            print("there is no question; write it after `ai-client chat`, or pipe it in", file=sys.stderr)
            return EXIT_USAGE
        return _converse(options, messages)
    except UnicodeDecodeError:
        print("standard input is not UTF-8 text; convert it, with iconv for example", file=sys.stderr)
        return EXIT_USAGE
    except (_RefusedError, ServiceUnreachableError, AIClientError) as exc:
        print(f"\n{exc}" if sys.stdout.isatty() else exc, file=sys.stderr)
        return 1


def _converse(options: argparse.Namespace, messages: Messages) -> int:
    _note("Ctrl-D ends the conversation")
    while True:
        try:
            text = input("> ")
        except EOFError:
            print()
            return 0
        if text.strip():
            messages.append({"role": "user", "content": text})
            messages.append({"role": "assistant", "content": _ask(options, messages)})


def _ask(options: argparse.Namespace, messages: Messages) -> str:
    """Print the answer as it comes, and return it."""
    body: dict[str, Any] = {"messages": messages, "stream": not options.json}
    if options.model:
        body["model"] = options.model
    if options.max_tokens:
        body["max_tokens"] = options.max_tokens
    path = socket_of(options)
    connection = UnixConnection(path, timeout_s=TIMEOUT_S)
    headers = {"content-type": "application/json", "x-priority": str(options.priority)}
    try:
        # Standard output has errors of its own, which are no OSError: see cli.terminal.
        connection.request("POST", "/v1/chat/completions", json.dumps(body).encode(), headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise _RefusedError(_message(answer.read(), answer.status))
        if options.json:
            whole = answer.read().decode()
            print(whole)
            return str(json.loads(whole)["choices"][0]["message"].get("content") or "")
        text = _print_pieces(answer)
        _note(f"{answer.headers.get('x-ai-model', '')}")
    except (OSError, http.client.HTTPException) as exc:
        reason = (exc.strerror if isinstance(exc, OSError) else None) or str(exc) or type(exc).__name__
        raise ServiceUnreachableError(f"the service does not answer on {path} ({reason}); {REMEDY}") from exc
    finally:
        connection.close()
    return text


def _print_pieces(answer: http.client.HTTPResponse) -> str:
    pieces = []
    for piece in _pieces(answer):
        pieces.append(piece)
        print(piece, end="", flush=True)
    print()
    return "".join(pieces)


def _pieces(answer: http.client.HTTPResponse) -> Iterator[str]:
    """The text of a stream, piece by piece."""
    parser = SSEParser()
    while chunk := answer.read1():
        yield from _texts(parser.feed(chunk))
    yield from _texts(parser.rest())


def _texts(events: list[dict[str, Any]]) -> Iterator[str]:
    for event in events:
        fault = fault_of(event)
        if fault is not None:
            raise _RefusedError(fault.message or fault.code or "the answer broke off")
        for choice in event.get("choices") or ():
            yield (choice.get("delta") or {}).get("content") or ""


def _message(body: bytes, status: int) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the service answers {status}"


def _note(text: str) -> None:
    """Something beside the answer: only for people."""
    if sys.stdout.isatty() and text:
        print(f"{_DIM}{text}{_PLAIN}")
