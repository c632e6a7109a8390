"""How chat requests are merged, where their callers ask for it: several conversations put to the model as one. Pure.

The model is asked for a JSON array with one answer for each conversation. It may not comply, and the conversations
are not hidden from one another; so it is for callers who opt in (`Request.merge`), within one tenant, and an answer
that can't be taken apart means that each request is sent alone.
"""

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from msgspec import structs

from ai_client.contract.request import Request, Response, Usage
from ai_client.sharing.merger import common_terms, split_cost, split_usage

_PROMPT: Final = (
    "The user's message is a JSON array of {count} independent conversations. Answer each one as its assistant would,"
    " following its own system messages, without regard to the others. Reply with nothing but a JSON array of {count}"
    " strings: the n-th is your answer to the n-th conversation."
)
# With any of these an answer is more than one text, or its text is not free.
_ALONE: Final = frozenset(
    {"tools", "functions", "tool_choice", "function_call", "response_format", "logprobs", "top_logprobs"}
    | {"stop", "logit_bias", "audio", "modalities", "prediction", "stream", "stream_options"}
)
_BOUNDS: Final = ("max_tokens", "max_completion_tokens")
# Brackets, commas and quotes around the answers.
_TOKENS_AROUND: Final = 8


class ChatMerging:
    """Chat requests of one tenant that opt in, with equal parameters and cost tags."""

    def group(self, request: Request) -> Hashable | None:
        """Everything but the messages and their bound."""
        body = request.body
        if request.endpoint != "chat/completions" or not request.merge or request.stream:
            return None
        if _ALONE & set(body) or body.get("n", 1) != 1 or not _are_plain(body.get("messages")):
            return None
        bounds = [name for name in _BOUNDS if name in body]
        if not all(isinstance(body[name], int) for name in bounds):
            return None
        parameters = {name: value for name, value in body.items() if name not in ("messages", *bounds)}
        try:
            text = json.dumps([parameters, bounds], sort_keys=True)
        except (TypeError, ValueError):
            return None
        tags = tuple(sorted(request.cost_tags.items()))
        return (text, request.tenant, tags, request.cache_mode, request.importance)

    def parts(self, request: Request) -> int:
        return 1

    def join(self, requests: Sequence[Request]) -> Request:
        """One system message that says what to do, one user message with the conversations."""
        terms = common_terms(requests)
        conversations = json.dumps([request.body["messages"] for request in requests], ensure_ascii=False)
        body: dict[str, Any] = {
            **terms.body,
            "messages": [
                {"role": "system", "content": _PROMPT.format(count=len(requests))},
                {"role": "user", "content": conversations},
            ],
        }
        for name in _BOUNDS:
            if name in body:
                body[name] = sum(request.body[name] + _TOKENS_AROUND for request in requests)
        # It is one call for many: it must not be merged again.
        return structs.replace(terms, body=body, merge=False)

    def split(self, response: Response, requests: Sequence[Request]) -> list[Response] | None:
        """A completion of its own for each request, and its part of the tokens by the length of its texts."""
        try:
            answer = response.json()
            texts = json.loads(_only_text(answer))
        except (ValueError, LookupError, TypeError):
            return None
        if not isinstance(texts, list) or len(texts) != len(requests):
            return None
        if not all(isinstance(text, str) for text in texts):
            return None
        usages = self._usages(response.usage, requests, texts)
        costs = split_cost(response.cost_usd, usages or [Usage(0, 0)] * len(requests))
        return [
            replace(
                response,
                body=_completion(answer, text, None if usages is None else usages[number], number),
                usage=None if usages is None else usages[number],
                cost_usd=costs[number],
            )
            for number, text in enumerate(texts)
        ]

    def _usages(
        self, usage: Usage | None, requests: Sequence[Request], texts: Sequence[str]
    ) -> list[Usage] | None:
        if usage is None:
            return None
        asked = [len(json.dumps(request.body["messages"])) for request in requests]
        return split_usage(usage, inputs=asked, outputs=[len(text) for text in texts])


def _are_plain(messages: object) -> bool:
    """Whether there are messages, all of them plain texts of the usual roles."""
    return (
        isinstance(messages, Sequence)
        and bool(messages)
        and all(
            isinstance(message, Mapping)
            and set(message) == {"role", "content"}
            and isinstance(message["content"], str)
            for message in messages
        )
    )


def _only_text(answer: Any) -> str:
    """The one text of a completion that came to its natural end. Raises LookupError, TypeError."""
    (choice,) = answer["choices"]
    if choice["finish_reason"] != "stop":
        raise LookupError
    text: str = choice["message"]["content"].strip()
    # Some models wrap JSON in a fence, whatever they are told.
    if text.startswith("```") and text.endswith("```"):
        text = text[3:-3].removeprefix("json")
    return text


def _completion(answer: Mapping[str, Any], text: str, usage: Usage | None, number: int) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    body: dict[str, Any] = {**answer, "id": f"{answer.get('id', 'merged')}-{number}", "choices": [choice]}
    if usage is not None:
        body["usage"] = {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.total_tokens,
        }
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
