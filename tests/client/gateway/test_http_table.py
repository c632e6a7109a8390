"""What the server makes of 65 requests, proper and not: `h1_table.json` says, a line a case.

`send` is [text, how often] in latin-1; `ends` is whether the connection is "kept" or "closed" after it; `body` is what
the application sees of the last request. Sources: RFC 9110 and 9112, and the request smuggling that they warn of.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.client.gateway.echo_app import echo, echoes, sent, statuses
from tests.client.gateway.gateway_socket import served

pytestmark = pytest.mark.asyncio(loop_scope="module")

CASES: list[dict[str, Any]] = json.loads(Path(__file__).with_name("h1_table.json").read_text())
LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
# Cut into single bytes where it is shorter.
SHORT_BYTES = 400


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def path(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Path]:
    """A socket on which the server listens."""
    place = tmp_path_factory.mktemp("table") / "socket"
    async with served(echo, place):
        yield place


def pieces_of(data: bytes, how: str) -> list[bytes]:
    """The same bytes in other packets."""
    if how == "whole":
        return [data]
    if how == "by the byte" and len(data) <= SHORT_BYTES:
        return [data[at : at + 1] for at in range(len(data))]
    # After the head where there is one: what comes then must not reach into it.
    at = data.find(b"\r\n\r\n") + 4 if b"\r\n\r\n" in data else len(data) // 2
    return [data[:at], data[at : at + 6], data[at + 6 :]]


@pytest.mark.parametrize("how", ["whole", "after the head", "by the byte"])
@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
async def test_a_request_has_its_status_and_its_end_however_it_is_cut(
    path: Path, case: dict[str, Any], how: str
) -> None:
    """A connection that is kept answers another request; one that is not, ends."""
    data = b"".join(text.encode("latin-1") * count for text, count in case["send"])
    is_kept = case["ends"] == "kept"
    answers = await sent(path, [*pieces_of(data, how), *([LAST] if is_kept else [])])
    assert statuses(answers) == case["statuses"] + [200] * is_kept
    seen = echoes(answers)[:-1] if is_kept else echoes(answers)
    if "body" in case and seen:
        assert seen[-1][2] == case["body"]
    head = data.rpartition(b"HTTP/1.")[2].partition(b"\r\n\r\n")[0]
    names = {name.decode("latin-1").lower() for name in re.findall(rb"\n([^:\r\n]+):", head)}
    assert {name for request in seen for name, _ in request[3]} <= names
