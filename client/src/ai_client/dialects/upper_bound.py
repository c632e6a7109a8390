"""The most that a request can make a provider bill, whatever its fields hold. Pure.

A caller may write numbers as integers, floats or text, give several bounds of the output, ask for many outputs, and
refer to what this program never sees. Where two readings are possible the dearer one counts. What can't be bounded is
named, so that whoever keeps a hard budget can refuse it.

- Input: no tokenizer makes more tokens than bytes. An image is bounded by its model's dearest one; sound that is sent
  along by its bytes; what is referred to (files, earlier responses, stored prompts) by the model's context window.
- Output: the largest bound that is given, else the model's own, times the outputs that are asked for. That an upstream
  honours the one bound that it is given is what this rests on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from ai_client.contract.request import UNTOLD_REGION, Usage
from ai_client.contract.stores import Unbounded
from ai_client.dialects.input_parts import InputParts, folded, read_input
from ai_client.dialects.media_bound import media_bound
from ai_client.dialects.model_facts import ModelFacts, facts_of
from ai_client.dialects.numbers import number_of
from ai_client.dialects.uncountable import in_other_letters, uncountable

#: More than any model writes; sums of it stay far within 64 bits.
MOST_TOKENS: Final = 10**9
#: The names of the output's bound, by endpoint, the newest first: what some other name says holds for nobody.
_OUTPUT_FIELDS_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "chat/completions": ("max_completion_tokens", "max_tokens"),
    "completions": ("max_tokens",),
    "responses": ("max_output_tokens",),
    "messages": ("max_tokens",),
}
OUTPUT_FIELDS: Final = (
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens_to_sample",
    "max_new_tokens",
)
_WITHOUT_OUTPUT: Final = frozenset(("embeddings", "models", "moderations", "rerank"))
# The prompts that providers put before tools: Anthropic's is the longest that is known (about 700 tokens).
_TOOLS_TOKENS: Final = 1_024
# Cohere bills a search for each hundred documents, and takes a longer one for several of 500 tokens.
_DOCUMENTS_A_SEARCH: Final = 100
_DOCUMENT_BYTES: Final = 500
_THINKING: Final = ("reasoning_effort", "reasoning", "thinking", "enable_thinking", "thinking_config")


_PLAIN_MEMBERS: Final = frozenset(
    (
        "model",
        "messages",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "presence_penalty",
        "frequency_penalty",
        "seed",
        "user",
    )
)
_PLAIN_MESSAGE: Final = frozenset(("role", "content"))


class UpperBound(Struct, frozen=True):
    """`usage` holds where `unbounded` is None."""

    usage: Usage
    #: Of the body, without what is sent along of images.
    text_bytes: int
    unbounded: Unbounded | None = None
    #: The caller does not bound the output.
    is_output_open: bool = False
    #: Nor does the model, or not every server heeds the caller's: `usage` holds only where this is sent along.
    output_to_send: int | None = None
    #: The model may think without showing it, or go on in the background: what came of its answer bounds nothing.
    thinks_unseen: bool = False


class _OutputBound(Struct, frozen=True):
    """Of one output."""

    bound: int
    to_send: int | None = None
    unbounded: Unbounded | None = None


def upper_bound(
    endpoint: str, body: Mapping[str, Any], *, model: str, body_bytes: int, default_output: int
) -> UpperBound:
    """Of `body`, which is `body_bytes` as it is sent to `model`, by the upstream's own name of it.

    `default_output` is the bound of an output that neither the caller nor the model bounds.
    """
    if endpoint == "chat/completions" and _is_plain(body):
        return _of_plain(body, model=model, body_bytes=body_bytes, default_output=default_output)
    return bound_of_any(endpoint, body, model=model, body_bytes=body_bytes, default_output=default_output)


def _is_plain(body: Mapping[str, Any]) -> bool:
    """Whether it holds texts and a few members that everybody reads alike: what most callers send.

    A tenth of the work of the rest; a test holds both to the same bounds.
    """
    messages, model = body.get("messages"), body.get("model")
    if type(messages) is not list or type(model) is not str or not body.keys() <= _PLAIN_MEMBERS:
        return False
    if model.endswith(":online") or model.startswith("@preset/"):
        return False
    for name in ("max_tokens", "max_completion_tokens"):
        if name in body and (type(bound := body[name]) is not int or bound < 1):
            return False
    for message in messages:
        if type(message) is not dict or not message.keys() <= _PLAIN_MESSAGE:
            return False
        if type(message.get("content")) is not str:
            return False
    return True


def _of_plain(body: Mapping[str, Any], *, model: str, body_bytes: int, default_output: int) -> UpperBound:
    facts = facts_of(model)
    old, new = body.get("max_tokens", 0), body.get("max_completion_tokens", 0)
    given = min(MOST_TOKENS, max(old, new))
    to_send: int | None = None
    if not given:
        bound = facts.most_output or default_output
        to_send = bound if facts.most_output is None else None
    else:
        bound = given + facts.thoughts_beside
        if not facts.heeds_new_bound and not old:
            to_send = given
    return UpperBound(
        Usage(
            body_bytes + facts.hidden_input,
            min(MOST_TOKENS, bound),
            region=UNTOLD_REGION if facts.knows_regions else "",
        ),
        body_bytes,
        is_output_open=not given and bound > 0,
        output_to_send=to_send,
        thinks_unseen=facts.thinks_unseen,
    )


def bound_of_any(
    endpoint: str, body: Mapping[str, Any], *, model: str, body_bytes: int, default_output: int
) -> UpperBound:
    """The same of any body, whatever its fields hold."""
    odd_name = in_other_letters(body)
    body = folded(body)
    if endpoint.startswith(("images/", "audio/")):
        usage, text_bytes = media_bound(endpoint, body, body_bytes=body_bytes, number=_number)
        # A picture's address or a sound's bytes bound no tokens, as little as an answer without its thoughts does.
        return UpperBound(usage, text_bytes, thinks_unseen=True)
    facts = facts_of(model)
    parts = read_input(body)
    unbounded = odd_name or uncountable(endpoint, body) or _unknown_reference(parts, facts, model)
    text_bytes = body_bytes - parts.image_bytes
    read = text_bytes + parts.images * facts.image + facts.hidden_input + _read_on_top(endpoint, body)
    read = max(read, facts.context or 0) if parts.reference else read
    output = _output_each(endpoint, body, facts, default_output)
    written = min(MOST_TOKENS, output.bound * outputs_of(body)) + _predicted_bytes(body)
    usage = Usage(
        read,
        written,
        images=parts.images,
        searches=_searches(body) if endpoint == "rerank" else 0,
        tier=_tier(body),
        region=_region(endpoint, body, facts),
        long_cache_write_tokens=read if parts.caches_long else 0,
        audio_input_tokens=read if parts.sounds else 0,
        audio_output_tokens=written if _is_heard(body) else 0,
    )
    return UpperBound(
        usage,
        text_bytes,
        unbounded or output.unbounded,
        is_output_open=output.bound > 0 and output_bound(body, endpoint) is None,
        output_to_send=output.to_send,
        thinks_unseen=facts.thinks_unseen
        or bool(body.get("background"))
        or any(body.get(name) for name in _THINKING),
    )


def _unknown_reference(parts: InputParts, facts: ModelFacts, model: str) -> Unbounded | None:
    """Where it refers to what is kept elsewhere, only the model's context window bounds what is read."""
    if not parts.reference or facts.context is not None:
        return None
    reason = f"refers to what is not in it, and the context window of {model} is not known"
    return Unbounded(parts.reference, reason)


def _read_on_top(endpoint: str, body: Mapping[str, Any]) -> int:
    """Tokens that are read beside what is written in the body: for its tools, and a query once a document."""
    tools = body.get("tools") or body.get("functions")
    read = _TOOLS_TOKENS * (1 + _typed_tools(tools)) if tools else 0
    return read + _queries_again(body) if endpoint == "rerank" else read


def output_bound(body: Mapping[str, Any], endpoint: str = "chat/completions") -> int | None:
    """The largest of the bounds that a request gives for one output; None where it gives none that holds.

    Some servers take 0 for none.
    """
    if not any(_number(body.get(name)) for name in _OUTPUT_FIELDS_OF.get(endpoint, OUTPUT_FIELDS)):
        return None
    return _largest(body)


def bounded_fields(endpoint: str, body: Mapping[str, Any], bound: int, *, is_openai: bool) -> dict[str, Any]:
    """The members to send for the bound to hold; what stands in the body and bounds nothing is overwritten.

    OpenAI itself knows the new name of the chat's, and refuses the old one for models that think; of others some know
    only the old one.
    """
    known = _OUTPUT_FIELDS_OF.get(endpoint, ("max_tokens",))
    name = known[0] if is_openai else known[-1]
    senseless = [each for each in known if each in body and not _number(body[each])]
    return dict.fromkeys((*senseless, name), bound)


def outputs_of(body: Mapping[str, Any]) -> int:
    """How many outputs it may be billed for: choices, those they are chosen from, and prompts in lists."""
    choices = max(_number(body.get("n")) or 1, _number(body.get("best_of")) or 1)
    prompt, embeds = body.get("prompt"), body.get("prompt_embeds")
    prompts = len(prompt) if isinstance(prompt, list) and not all(type(each) is int for each in prompt) else 1
    prompts += len(embeds) if isinstance(embeds, list) else 1 if embeds else 0
    return min(MOST_TOKENS, max(1, choices) * max(1, prompts))


def _largest(body: Mapping[str, Any]) -> int | None:
    return max((number for name in OUTPUT_FIELDS if (number := _number(body.get(name)))), default=None)


def _output_each(endpoint: str, body: Mapping[str, Any], facts: ModelFacts, default: int) -> _OutputBound:
    """The bound of one output, and what has to be sent along for it to hold."""
    if endpoint in _WITHOUT_OUTPUT:
        return _OutputBound(0)
    given = output_bound(body, endpoint)
    if given is None:
        bound = max(_largest(body) or 0, facts.most_output or default)
        if facts.most_output is not None:
            return _OutputBound(bound)
        if endpoint in _OUTPUT_FIELDS_OF:
            return _OutputBound(bound, bound)
        return _OutputBound(
            bound, unbounded=Unbounded("model", "bounds its output nowhere that is known here")
        )
    thought = _thinking_budget(body)
    bound = given + thought if thought >= given else given
    bound += facts.thoughts_beside
    if endpoint == "chat/completions" and not facts.heeds_new_bound and not _number(body.get("max_tokens")):
        # DeepSeek and others take no notice of max_completion_tokens.
        return _OutputBound(bound, given)
    return _OutputBound(bound)


def _thinking_budget(body: Mapping[str, Any]) -> int:
    """The largest budget for thoughts: some servers take it beside the bound of the output, where it is no less."""
    extra = body.get("extra_body")
    google = extra.get("google") if isinstance(extra, Mapping) else None
    places = [body, body.get("thinking"), body.get("reasoning"), body.get("thinking_config")]
    if isinstance(google, Mapping):
        places.append(google.get("thinking_config"))
    names = ("budget_tokens", "thinking_budget", "reasoning_budget")
    found = [_number(place.get(name)) for place in places if isinstance(place, Mapping) for name in names]
    reasoning = body.get("reasoning")
    found.append(_number(reasoning.get("max_tokens")) if isinstance(reasoning, Mapping) else None)
    return max((each for each in found if each is not None), default=0)


def _typed_tools(tools: object) -> int:
    """Tools that providers describe themselves."""
    if not isinstance(tools, list):
        return 0
    own = ("function", "custom", None)
    return sum(isinstance(tool, Mapping) and tool.get("type") not in own for tool in tools)


def _queries_again(body: Mapping[str, Any]) -> int:
    """A reranker reads its query anew with every document."""
    documents = body.get("documents")
    count = len(documents) if isinstance(documents, list | Mapping) else 1
    return count * len(str(body.get("query", "")).encode("utf-8", "replace"))


def _searches(body: Mapping[str, Any]) -> int:
    documents = body.get("documents")
    each = documents if isinstance(documents, list) else [documents]
    pieces = sum(1 + len(str(document).encode("utf-8", "replace")) // _DOCUMENT_BYTES for document in each)
    return -(-pieces // _DOCUMENTS_A_SEARCH)


def _is_heard(body: Mapping[str, Any]) -> bool:
    """Whether an answer is asked for that is not only text: its tokens have another price."""
    asked = body.get("modalities")
    if asked is None or asked == []:
        return False
    return not isinstance(asked, list) or not all(each == "text" for each in asked)


def _number(value: object) -> int | None:
    """A count, from any way of writing one that some server reads as one; None where it is none."""
    if value is None:
        return None
    value = number_of(value)
    if isinstance(value, float):
        if math.isnan(value):
            return None
        # Less than one is none to a server that cuts off what is behind the point.
        value = MOST_TOKENS if value > MOST_TOKENS else 0 if 0 <= value < 1 else math.ceil(max(value, -1.0))
    return min(value, MOST_TOKENS) if value is not None and value >= 0 else None


def _predicted_bytes(body: Mapping[str, Any]) -> int:
    """Predicted tokens that are not used are billed as output."""
    prediction = body.get("prediction")
    return 0 if prediction is None else len(str(prediction).encode("utf-8", "replace"))


def _region(endpoint: str, body: Mapping[str, Any], facts: ModelFacts) -> str:
    """The place that is asked for; "" where it may be any. Who asks for none may have one for all requests."""
    asked = body.get("inference_geo")
    if asked is None:
        return UNTOLD_REGION if facts.knows_regions or endpoint == "messages" else ""
    return "" if asked == "global" else asked if isinstance(asked, str) else "unknown"


def _tier(body: Mapping[str, Any]) -> str:
    """What is asked for, empty where the provider may choose."""
    asked = body.get("service_tier")
    if body.get("speed") not in (None, "standard"):  # Anthropic's, for what it sells as fast
        return str(body["speed"]) if asked in (None, "auto", "standard_only") else "unknown"
    if asked is None or asked == "auto":
        return ""
    return asked if isinstance(asked, str) else "unknown"
