"""Many requests at once, answered in their order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ai_client.contract.request import Request, Response
from ai_client.errors import AIClientError, BadRequestError


def as_request(
    item: Mapping[str, Any] | Sequence[Mapping[str, Any]] | str | Request,
    *,
    model: str,
    priority: int,
    tenant: str,
) -> Request:
    """What `batch_process` takes, as a request. Its `priority` is ours and is not sent upstream.

    Raises BadRequestError where the priority is none.
    """
    if isinstance(item, Request):
        return item
    if isinstance(item, str):
        body: dict[str, Any] = {"messages": [{"role": "user", "content": item}]}
    elif isinstance(item, Mapping):
        body = dict(item)
    else:
        body = {"messages": list(item)}
    own_priority = body.pop("priority", priority)
    if not isinstance(own_priority, int) or isinstance(own_priority, bool) or not 0 <= own_priority <= 9:
        raise BadRequestError(
            "priority",
            f"is {own_priority!r}, and must be a whole number",
            remedy="Give one from 0 (most urgent) to 9.",
        )
    return Request(
        endpoint="chat/completions", body={"model": model, **body}, priority=own_priority, tenant=tenant
    )


def as_requests(
    items: Iterable[Mapping[str, Any] | Sequence[Mapping[str, Any]] | str | Request],
    *,
    model: str,
    priority: int,
    tenant: str,
) -> list[Request | AIClientError]:
    """Each as a request, or why it is none."""
    requests: list[Request | AIClientError] = []
    for item in items:
        try:
            requests.append(as_request(item, model=model, priority=priority, tenant=tenant))
        except BadRequestError as error:
            requests.append(error)
    return requests


async def run_in_order(
    requests: Sequence[Request | AIClientError],
    send: Callable[[Request], Awaitable[Response]],
    *,
    at_once: int,
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
    requests: Sequence[Request | AIClientError],
    places: Iterator[int],
    send: Callable[[Request], Awaitable[Response]],
    answers: list[dict[str, Any] | Exception],
) -> None:
    for place in places:
        request = requests[place]
        if isinstance(request, AIClientError):
            answers[place] = request
            continue
        try:
            response = await send(request)
            answers[place] = response.json()
        except (AIClientError, ValueError) as error:
            answers[place] = error
