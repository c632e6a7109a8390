"""Many requests at once, answered in their order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from ai_client.errors import AIClientError
from ai_client.request import Request, Response


def as_request(
    item: Mapping[str, Any] | Sequence[Mapping[str, Any]] | str | Request,
    *,
    model: str,
    priority: int,
    tenant: str,
) -> Request:
    """What `batch_process` takes, as a request."""
    if isinstance(item, Request):
        return item
    if isinstance(item, str):
        body: dict[str, Any] = {"messages": [{"role": "user", "content": item}]}
    elif isinstance(item, Mapping):
        body = dict(item)
    else:
        body = {"messages": list(item)}
    return Request(
        endpoint="chat/completions",
        body={"model": model, **body},
        priority=body.pop("priority", priority),
        tenant=tenant,
    )


async def run_in_order(
    requests: Sequence[Request], send: Callable[[Request], Awaitable[Response]], *, at_once: int
) -> list[dict[str, Any] | Exception]:
    """The parsed answers; in the place of each request that failed, its error."""
    answers: list[dict[str, Any] | Exception] = [{} for _ in requests]
    places = iter(range(len(requests)))
    workers = min(at_once, len(requests))
    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(_work(requests, places, send, answers))
    return answers


async def _work(
    requests: Sequence[Request],
    places: Iterator[int],
    send: Callable[[Request], Awaitable[Response]],
    answers: list[dict[str, Any] | Exception],
) -> None:
    for place in places:
        try:
            response = await send(requests[place])
            answers[place] = response.json()
        except (AIClientError, ValueError) as error:
            answers[place] = error
