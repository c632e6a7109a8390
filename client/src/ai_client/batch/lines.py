"""The lines of a batch: what goes in, what comes out. Pure.

https://platform.openai.com/docs/guides/batch : a request a line, `{custom_id, method, url, body}`; an answer a line,
`{id, custom_id, response: {status_code, request_id, body}, error}`. Our `id` holds the number of the input line, by
which a later run knows what is done; `cost_usd` is ours.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

URLS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/v1/moderations",
    "/v1/rerank",
)
ID_PREFIX = "batch_req_"
INVALID_LINE = "invalid_line"

# An answer begins so, whatever is in it: a scan needs not parse the rest.
_HEAD = re.compile(rb'\{"id":"batch_req_(\d+)","cost_usd":(\d+\.\d+),"code":"([A-Za-z0-9_]*)",')


@dataclass(frozen=True, slots=True)
class RequestLine:
    """A request; `number` is that of its line, from 1."""

    number: int
    custom_id: str
    url: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no request, and why."""

    number: int
    custom_id: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Answered:
    """What a scan of an output file finds in a line. `code` is empty where the request succeeded."""

    number: int
    cost_usd: float
    code: str


def parse(number: int, raw: bytes) -> RequestLine | BadLine:
    """Read a line of the input."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return BadLine(number, None, "is not JSON")
    if not isinstance(value, dict):
        return BadLine(number, None, "is not a JSON object")
    custom_id = value.get("custom_id")
    known_id = custom_id if isinstance(custom_id, str) and custom_id else None
    reason = _fault(value, known_id)
    if reason is not None or known_id is None:
        return BadLine(number, known_id, reason or "")
    return RequestLine(number, known_id, value["url"], value["body"])


def _fault(value: dict[str, Any], custom_id: str | None) -> str | None:
    """What is wrong with a request, first things first."""
    body = value.get("body")
    found = (
        (custom_id is None, "has no custom_id, a text"),
        (value.get("method", "POST") != "POST", "has a method other than POST"),
        (value.get("url") not in URLS, f"has a url that is none of {', '.join(URLS)}"),
        (not isinstance(body, dict), "has no body, an object"),
        (isinstance(body, dict) and body.get("stream"), "asks for a stream, which a batch can't have"),
    )
    return next((reason for is_so, reason in found if is_so), None)


def success(line: RequestLine, *, status: int, request_id: str, body: bytes, cost_usd: float) -> bytes:
    """A line of the output. `body` is the answer's JSON as it came, but for line ends between its members."""
    response = b'{"status_code":%d,"request_id":%b,"body":%b}' % (
        status,
        json.dumps(request_id).encode(),
        body.replace(b"\r", b"").replace(b"\n", b" "),
    )
    return _line(line.number, cost_usd, "", line.custom_id, response=response, error=b"null")


def failure(line: RequestLine, *, status: int, code: str, message: str, body: bytes | None) -> bytes:
    """A line of the errors file for a request that was answered with an error, or not at all."""
    response = b"null"
    if body is not None:
        response = json.dumps({"status_code": status, "request_id": None, "body": _readable(body)}).encode()
    error = json.dumps({"code": code, "message": message}).encode()
    return _line(line.number, 0.0, code or "unknown", line.custom_id, response=response, error=error)


def rejection(line: BadLine) -> bytes:
    """A line of the errors file for a line that is no request."""
    error = {"code": INVALID_LINE, "message": f"line {line.number} {line.reason}", "line": line.number}
    return _line(
        line.number, 0.0, INVALID_LINE, line.custom_id, response=b"null", error=json.dumps(error).encode()
    )


def _readable(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")


def _line(
    number: int, cost_usd: float, code: str, custom_id: str | None, *, response: bytes, error: bytes
) -> bytes:
    safe_code = re.sub(r"[^A-Za-z0-9_]", "_", code)
    head = f'{{"id":"{ID_PREFIX}{number}","cost_usd":{cost_usd:.9f},"code":"{safe_code}",'
    return b'%b"custom_id":%b,"response":%b,"error":%b}\n' % (
        head.encode(),
        json.dumps(custom_id).encode(),
        response,
        error,
    )


def scan(raw: bytes) -> Answered | None:
    """What an output line is about; None for a line that is none of ours."""
    match = _HEAD.match(raw)
    if match is None:
        return None
    return Answered(int(match[1]), float(match[2]), match[3].decode())
