"""How embedding requests are merged: one list of inputs, its vectors handed back in order. Pure."""

import json
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

from msgspec import structs

from ai_client.contract.request import Request, Response, Usage
from ai_client.sharing.merger import common_terms, split_cost, split_usage


class EmbeddingMerging:
    """Requests of one tenant, with equal parameters and cost tags, may be one call."""

    def group(self, request: Request) -> Hashable | None:
        """Everything but the input that shapes the answer or its bill."""
        if request.endpoint != "embeddings" or request.stream or not inputs_of(request):
            return None
        parameters = {name: value for name, value in request.body.items() if name != "input"}
        try:
            text = json.dumps(parameters, sort_keys=True)
        except (TypeError, ValueError):
            return None
        tags = tuple(sorted(request.cost_tags.items()))
        # One call has either texts or lists of token ids.
        kind = type(inputs_of(request)[0]) is str
        return (text, kind, request.tenant, tags, request.cache_mode, request.importance)

    def parts(self, request: Request) -> int:
        return len(inputs_of(request))

    def join(self, requests: Sequence[Request]) -> Request:
        """The inputs of all, one after the other."""
        inputs = [each for request in requests for each in inputs_of(request)]
        terms = common_terms(requests)
        return structs.replace(terms, body={**terms.body, "input": inputs})

    def split(self, response: Response, requests: Sequence[Request]) -> list[Response] | None:
        """Each request's vectors, numbered from 0, and its part of the tokens by the length of its inputs."""
        try:
            answer = response.json()
        except ValueError:
            return None
        inputs = [inputs_of(request) for request in requests]
        vectors = _in_order(answer, sum(map(len, inputs)))
        if vectors is None:
            return None
        usages = _usages(response.usage, inputs)
        costs = split_cost(response.cost_usd, usages or [Usage(0, 0)] * len(requests))
        answers = []
        start = 0
        for number, mine in enumerate(inputs):
            own = [{**vector, "index": n} for n, vector in enumerate(vectors[start : start + len(mine)])]
            start += len(mine)
            body: dict[str, Any] = {**answer, "data": own}
            if usages is not None:
                tokens = usages[number].input_tokens
                body["usage"] = {**answer.get("usage", {}), "prompt_tokens": tokens, "total_tokens": tokens}
            answers.append(
                replace(
                    response,
                    body=json.dumps(body, separators=(",", ":")).encode(),
                    usage=None if usages is None else usages[number],
                    cost_usd=costs[number],
                )
            )
        return answers


def inputs_of(request: Request) -> list[Any]:
    """The request's inputs as a list: a text or a list of token ids is one, a list of either is many."""
    value = request.body.get("input")
    if isinstance(value, str):
        return [value]
    if not isinstance(value, Sequence) or not value:
        return []
    if all(isinstance(each, int) for each in value):
        return [value]
    if all(isinstance(each, str) for each in value) or all(_is_token_list(each) for each in value):
        return list(value)
    return []


def _is_token_list(value: object) -> bool:
    return isinstance(value, Sequence) and bool(value) and all(isinstance(each, int) for each in value)


def _in_order(answer: object, count: int) -> list[dict[str, Any]] | None:
    """The vectors by their index, if there is exactly one for each input."""
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list) or not all(isinstance(each, dict) for each in data):
        return None
    by_index = {each.get("index"): each for each in data}
    if len(data) != count or set(by_index) != set(range(count)):
        return None
    return [by_index[n] for n in range(count)]


def _usages(usage: Usage | None, inputs: Sequence[Sequence[Any]]) -> list[Usage] | None:
    if usage is None:
        return None
    weights = [sum(len(each) for each in mine) for mine in inputs]
    return split_usage(usage, inputs=weights, outputs=weights)
