"""Merging: many small requests, one call, and to each caller what is its own."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_client.contract.request import Request, Response, Usage
from ai_client.errors import BadRequestError, ServerError
from ai_client.platform.clock import ManualClock
from ai_client.sharing.merged_chat import ChatMerging
from ai_client.sharing.merged_embeddings import EmbeddingMerging, inputs_of
from ai_client.sharing.merger import Merger, split_evenly, split_usage


def embedding(text: Any, *, model: str = "e", tenant: str = "a", **more: Any) -> Request:
    return Request(endpoint="embeddings", body={"model": model, "input": text, **more}, tenant=tenant)


def chat(text: str, **more: Any) -> Request:
    merge = more.pop("merge", True)
    body = {"model": "m", "messages": [{"role": "user", "content": text}], **more}
    return Request(endpoint="chat/completions", body=body, merge=merge)


def vectors(request: Request) -> Response:
    """What an upstream answers: one vector for each input, and 10 tokens for each."""
    inputs = inputs_of(request)
    data = [{"object": "embedding", "index": n, "embedding": [len(each), n]} for n, each in enumerate(inputs)]
    tokens = 10 * len(inputs)
    body = {"object": "list", "data": data, "model": "e", "usage": {"prompt_tokens": tokens}}
    return Response(
        status=200,
        headers={},
        body=json.dumps(body).encode(),
        model="e",
        usage=Usage(tokens, 0),
        cost_usd=0.01 * tokens,
    )


def with_data(response: Response, change: Callable[[list[Any]], Any]) -> Response:
    body = json.loads(response.body)
    return replace(response, body=json.dumps({**body, "data": change(body["data"])}).encode())


def completion(content: str, *, finish_reason: str = "stop") -> Response:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content},
        "finish_reason": finish_reason,
    }
    body = {"id": "c", "object": "chat.completion", "model": "m", "choices": [choice]}
    return Response(
        status=200, headers={}, body=json.dumps(body).encode(), model="m", usage=Usage(100, 11), cost_usd=1.0
    )


class Upstream:
    """Answers as `answer` says and remembers what was asked."""

    def __init__(self, answer: Callable[[Request], Response] = vectors) -> None:
        self.asked: list[Request] = []
        self.answer = answer
        self.gate: asyncio.Event | None = None
        self.cancelled = 0

    async def __call__(self, request: Request) -> Response:
        self.asked.append(request)
        await asyncio.sleep(0)
        try:
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.answer(request)


class Stage:
    def __init__(self, merging: EmbeddingMerging | ChatMerging, upstream: Upstream) -> None:
        self.clock = ManualClock()
        self.upstream = upstream
        self.merger = Merger(merging, upstream, window_s=0.003, max_parts=32, clock=self.clock)

    async def all(self, requests: Sequence[Request]) -> list[Response | BaseException]:
        """Sends them together and lets the window pass."""
        tasks = [asyncio.create_task(self.merger.send(request)) for request in requests]
        await turn()
        self.clock.advance(0.003)
        return await asyncio.gather(*tasks, return_exceptions=True)


async def turn(times: int = 8) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


@pytest.fixture
def stage() -> Stage:
    return Stage(EmbeddingMerging(), Upstream())


def answers(results: Sequence[Response | BaseException]) -> list[Any]:
    return [result.json() if isinstance(result, Response) else result for result in results]


async def test_embeddings_within_the_window_are_one_call(stage: Stage) -> None:
    """Each caller gets its own vectors, numbered from 0, and its part of the tokens and the cost."""
    results = await stage.all([embedding("a"), embedding(["bb", "ccc"]), embedding("dddd")])
    assert [request.body["input"] for request in stage.upstream.asked] == [["a", "bb", "ccc", "dddd"]]
    assert [[v["embedding"][0] for v in answer["data"]] for answer in answers(results)] == [[1], [2, 3], [4]]
    assert [[v["index"] for v in answer["data"]] for answer in answers(results)] == [[0], [0, 1], [0]]
    usages = [result.usage for result in results if isinstance(result, Response)]
    assert sum(usage.input_tokens for usage in usages if usage) == 40
    costs = [result.cost_usd for result in results if isinstance(result, Response)]
    assert sum(cost for cost in costs if cost) == pytest.approx(0.4)


async def test_lists_of_token_ids_are_one_input_each(stage: Stage) -> None:
    """They are merged with one another, not with texts."""
    results = await stage.all([embedding([1, 2, 3]), embedding([[4], [5, 6]]), embedding("text")])
    assert [request.body["input"] for request in stage.upstream.asked] == [[[1, 2, 3], [4], [5, 6]], "text"]
    assert [[v["embedding"][0] for v in answer["data"]] for answer in answers(results)] == [[3], [1, 2], [4]]


async def test_a_full_call_does_not_wait_for_the_window(stage: Stage) -> None:
    """The 32nd input sends it; the 33rd begins the next one."""
    tasks = [asyncio.create_task(stage.merger.send(embedding(f"t{n}"))) for n in range(33)]
    await turn()
    assert [len(request.body["input"]) for request in stage.upstream.asked] == [32]
    stage.clock.advance(0.003)
    await asyncio.gather(*tasks)
    assert [request.body["input"] for request in stage.upstream.asked[1:]] == ["t32"]


async def test_no_call_has_more_inputs_than_the_bound(stage: Stage) -> None:
    """One that does not fit any more goes with the next call."""
    await stage.all([embedding(["x"] * 20), embedding(["y"] * 20), embedding(["z"] * 40)])
    assert sorted(len(request.body["input"]) for request in stage.upstream.asked) == [20, 20, 40]


async def test_a_lone_request_goes_as_it_came(stage: Stage) -> None:
    """Nothing to merge with: the same body, the same answer."""
    (result,) = await stage.all([embedding("a", dimensions=3)])
    assert stage.upstream.asked == [embedding("a", dimensions=3)]
    assert isinstance(result, Response)


@pytest.mark.parametrize(
    "other",
    [
        embedding("b", model="f"),
        embedding("b", tenant="b"),
        embedding("b", dimensions=3),
        embedding("b", encoding_format="base64"),
        embedding(["b", 1]),
        Request(endpoint="embeddings", body={"model": "e", "input": "b"}, tenant="a", cost_tags={"t": "1"}),
    ],
    ids=["model", "tenant", "dimensions", "encoding", "mixed input", "tags"],
)
async def test_what_differs_in_more_than_its_input_is_not_merged(stage: Stage, other: Request) -> None:
    """Another model, tenant, parameter or bill is another call."""
    await stage.all([embedding("a"), other])
    assert len(stage.upstream.asked) == 2


async def test_the_merged_call_has_the_most_urgent_priority_and_the_longest_deadline(stage: Stage) -> None:
    """Nobody is worse off for having been merged."""
    terms = [(5, 10.0), (2, 30.0), (9, 20.0)]
    await stage.all(
        [
            Request(endpoint="embeddings", body={"model": "e", "input": "x"}, priority=priority, deadline_s=s)
            for priority, s in terms
        ]
    )
    (sent,) = stage.upstream.asked
    assert (sent.priority, sent.deadline_s) == (2, 30.0)


async def test_a_bad_input_fails_its_own_caller_alone(stage: Stage) -> None:
    """The merged call is refused; sent alone, the others get their answers."""

    def picky(request: Request) -> Response:
        if any(text == "bad" for text in inputs_of(request)):
            raise BadRequestError("input", "is too long")
        return vectors(request)

    stage.upstream.answer = picky
    results = await stage.all([embedding("a"), embedding("bad"), embedding("ccc")])
    assert [isinstance(result, BadRequestError) for result in results] == [False, True, False]
    assert len(stage.upstream.asked) == 4


async def test_a_failure_that_is_nobody_s_fault_is_everybody_s_and_not_repeated(stage: Stage) -> None:
    """Retries were made already, below: sending 32 requests alone would multiply the load of an outage."""

    def down(request: Request) -> Response:
        raise ServerError("upstream", "is down", status=503)

    stage.upstream.answer = down
    results = await stage.all([embedding("a"), embedding("b")])
    assert [type(result) for result in results] == [ServerError] * 2
    assert results[0] is not results[1]
    assert len(stage.upstream.asked) == 1


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: [data[0]] * len(data), lambda data: None]
)
async def test_an_answer_that_does_not_match_its_inputs_is_asked_for_one_by_one(
    stage: Stage, damage: Callable[[list[Any]], Any]
) -> None:
    """A vector must never come back to the wrong text."""

    def damaged(request: Request) -> Response:
        response = vectors(request)
        if len(inputs_of(request)) == 1:
            return response
        return with_data(response, damage)

    stage.upstream.answer = damaged
    results = await stage.all([embedding("a"), embedding("bb")])
    assert [answer["data"][0]["embedding"][0] for answer in answers(results)] == [1, 2]


async def test_vectors_in_another_order_come_to_the_right_callers(stage: Stage) -> None:
    """The index counts, not the place in the list."""

    def shuffled(request: Request) -> Response:
        return with_data(vectors(request), lambda data: data[::-1])

    stage.upstream.answer = shuffled
    results = await stage.all([embedding("a"), embedding("bb"), embedding("ccc")])
    assert [answer["data"][0]["embedding"][0] for answer in answers(results)] == [1, 2, 3]


async def test_a_caller_who_leaves_before_departure_is_not_sent(stage: Stage) -> None:
    """And if it was alone, nothing is; its timer goes too."""
    tasks = [asyncio.create_task(stage.merger.send(embedding(text))) for text in "ab"]
    await turn()
    tasks[0].cancel()
    await turn()
    stage.clock.advance(0.003)
    await tasks[1]
    assert [request.body["input"] for request in stage.upstream.asked] == ["b"]
    lone = asyncio.create_task(stage.merger.send(embedding("c")))
    await turn()
    lone.cancel()
    await asyncio.wait([lone])
    assert stage.clock.pending == 0
    assert len(stage.upstream.asked) == 1


async def test_a_call_under_way_ends_with_its_last_caller(stage: Stage) -> None:
    """One leaves: the others still get theirs. All leave: the call is cancelled."""
    stage.upstream.gate = asyncio.Event()
    tasks = [asyncio.create_task(stage.merger.send(embedding(text))) for text in "abc"]
    await turn()
    stage.clock.advance(0.003)
    await turn()
    tasks[0].cancel()
    await turn()
    assert stage.upstream.cancelled == 0
    tasks[1].cancel()
    tasks[2].cancel()
    await asyncio.wait(tasks)
    assert stage.upstream.cancelled == 1


async def test_closing_cancels_what_waits(stage: Stage) -> None:
    """Gathered or under way."""
    stage.upstream.gate = asyncio.Event()
    sent = [asyncio.create_task(stage.merger.send(embedding(text))) for text in "ab"]
    await turn()
    stage.clock.advance(0.003)
    gathered = asyncio.create_task(stage.merger.send(embedding("c")))
    await turn()
    await stage.merger.aclose()
    await asyncio.wait([*sent, gathered])
    assert all(task.cancelled() for task in (*sent, gathered))
    assert stage.clock.pending == 0


async def test_a_defect_of_a_merging_reaches_the_callers(stage: Stage) -> None:
    """Nobody waits for ever."""

    class Broken(EmbeddingMerging):
        def split(self, response: Response, requests: Sequence[Request]) -> list[Response] | None:
            raise ZeroDivisionError

    broken = Stage(Broken(), Upstream())
    results = await broken.all([embedding("a"), embedding("b")])
    assert [type(result) for result in results] == [ZeroDivisionError] * 2


async def test_chat_requests_are_merged_only_where_their_callers_ask_for_it() -> None:
    """`merge=True` on both; the model's array comes back as one completion for each."""
    upstream = Upstream(lambda request: completion('["one", "two"]'))
    stage = Stage(ChatMerging(), upstream)
    results = await stage.all([chat("first", max_tokens=10), chat("second", max_tokens=20)])
    assert [answer["choices"][0]["message"]["content"] for answer in answers(results)] == ["one", "two"]
    (sent,) = upstream.asked
    assert json.loads(sent.body["messages"][1]["content"]) == [
        [{"role": "user", "content": "first"}],
        [{"role": "user", "content": "second"}],
    ]
    assert sent.body["max_tokens"] >= 30
    usages = [answer["usage"] for answer in answers(results)]
    assert sum(usage["prompt_tokens"] for usage in usages) == 100
    assert sum(usage["completion_tokens"] for usage in usages) == 11
    await stage.all([chat("third", merge=False), chat("fourth")])
    assert len(upstream.asked) == 3


@pytest.mark.parametrize(
    ("content", "finish_reason"),
    [("Sure! Here you are", "stop"), ('["one"]', "stop"), ('["one", 2]', "stop"), ('["one", "t', "length")],
)
async def test_a_chat_answer_that_can_not_be_taken_apart_is_asked_for_one_by_one(
    content: str, finish_reason: str
) -> None:
    """No text, the wrong number of answers, or cut off."""

    def answer(request: Request) -> Response:
        if len(request.body["messages"]) == 2:
            return completion(content, finish_reason=finish_reason)
        return completion(request.body["messages"][0]["content"].upper())

    stage = Stage(ChatMerging(), Upstream(answer))
    results = await stage.all([chat("first"), chat("second")])
    texts = [each["choices"][0]["message"]["content"] for each in answers(results)]
    assert texts == ["FIRST", "SECOND"]
    assert len(stage.upstream.asked) == 3


async def test_a_fenced_array_is_taken_apart_too() -> None:
    """Some models wrap JSON in a fence."""
    stage = Stage(ChatMerging(), Upstream(lambda request: completion('```json\n["one", "two"]\n```')))
    results = await stage.all([chat("first"), chat("second")])
    texts = [each["choices"][0]["message"]["content"] for each in answers(results)]
    assert texts == ["one", "two"]


@pytest.mark.parametrize(
    "alone",
    [
        chat("x", tools=[{}]),
        chat("x", n=2),
        chat("x", response_format={"type": "json_object"}),
        chat("x", stop=["."]),
        chat("x", max_tokens="many"),
        Request(endpoint="chat/completions", body={"messages": []}, merge=True),
        Request(
            endpoint="chat/completions",
            body={"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            merge=True,
        ),
        Request(endpoint="chat/completions", body=chat("x").body, merge=True, stream=True),
    ],
)
def test_chat_requests_whose_answer_is_more_than_a_text_go_alone(alone: Request) -> None:
    """Tools, several choices, formats, images, streams."""
    assert ChatMerging().group(alone) is None


@given(st.integers(0, 10**6), st.lists(st.integers(0, 1000), min_size=1, max_size=40))
def test_parts_add_up_to_the_whole(total: int, weights: list[int]) -> None:
    """No token is lost or made up, and each part is within one of its exact share."""
    parts = split_evenly(total, weights)
    assert sum(parts) == total
    whole = sum(weights)
    if whole:
        assert all(abs(part - total * w / whole) < 1 for part, w in zip(parts, weights, strict=True))


@given(st.integers(0, 10**5), st.integers(0, 10**5), st.lists(st.integers(0, 100), min_size=1, max_size=32))
def test_usage_is_split_without_loss(read: int, written: int, weights: list[int]) -> None:
    """Input and output tokens of all callers together are the call's."""
    usages = split_usage(Usage(read, written), inputs=weights, outputs=weights)
    assert sum(usage.input_tokens for usage in usages) == read
    assert sum(usage.output_tokens for usage in usages) == written


def test_everybody_in_a_merged_call_learns_that_it_may_be_sent() -> None:
    """From then on none of them can be taken back for another process, where it would be sent again."""
    told: list[str] = []
    requests = [
        Request(endpoint="embeddings", body={"input": name}, on_admitted=lambda name=name: told.append(name))
        for name in ("a", "b")
    ]
    joined = EmbeddingMerging().join([*requests, Request(endpoint="embeddings", body={"input": "c"})])
    assert joined.on_admitted is not None
    joined.on_admitted()
    assert told == ["a", "b"]
