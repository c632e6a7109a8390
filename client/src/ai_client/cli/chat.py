"""`ai-client chat`: a question or a conversation, through the gateway's socket."""

from __future__ import annotations

import argparse
import http.client
import json
import sys
from collections.abc import Iterator
from typing import Any

from ai_client.cli.service_socket import ServiceUnreachableError, UnixConnection, socket_path

TIMEOUT_S = 600.0
_DIM, _PLAIN = "\033[2m", "\033[0m"

Messages = list[dict[str, str]]


class _RefusedError(Exception):
    """The service answered with an error; the text is its."""


def run(options: argparse.Namespace) -> int:
    """0, or 1 where an answer did not come whole."""
    messages: Messages = [{"role": "system", "content": options.system}] if options.system else []
    text = " ".join(options.text)
    if text == "-" or (not text and not sys.stdin.isatty()):
        text = sys.stdin.read()
    try:
        if text:
            _ask(options, [*messages, {"role": "user", "content": text}])
            return 0
        return _converse(options, messages)
    except (_RefusedError, ServiceUnreachableError) as exc:
        print(f"\n{exc}" if sys.stdout.isatty() else exc, file=sys.stderr)
        return 1


def _converse(options: argparse.Namespace, messages: Messages) -> int:
    _note("ctrl-d ends the conversation")
    while True:
        try:
            text = input("> ")
        except (EOFError, KeyboardInterrupt):
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
    path = socket_path(options.socket, options.config)
    connection = UnixConnection(path, timeout_s=TIMEOUT_S)
    headers = {"content-type": "application/json", "x-priority": str(options.priority)}
    try:
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
        remedy = "see `systemctl status ai-client`"
        raise ServiceUnreachableError(f"the service does not answer on {path} ({exc}); {remedy}") from exc
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
    for line in answer:
        event = line.strip().removeprefix(b"data: ")
        if not event or event == b"[DONE]":
            continue
        value = json.loads(event)
        if "error" in value:
            raise _RefusedError(str(value["error"].get("message")))
        for choice in value.get("choices", ()):
            yield choice.get("delta", {}).get("content") or ""


def _message(body: bytes, status: int) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the service answers {status}"


def _note(text: str) -> None:
    """Something beside the answer: only for people."""
    if sys.stdout.isatty() and text:
        print(f"{_DIM}{text}{_PLAIN}")
