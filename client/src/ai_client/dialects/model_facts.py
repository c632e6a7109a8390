"""What providers' pages say of their models: how much a call may read and write. Data, and how it is looked up.

From the model pages of OpenAI, Anthropic, Google and DeepSeek. Names are compared by their begin, the longest one that
fits, after any `provider/` before them; 4-5 and 4.5 are one. A model that is not listed has no facts, and who needs a
bound for it has to set one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """None: not known. All in tokens."""

    #: The longest answer, reasoning included: the provider refuses or cuts what is longer.
    most_output: int | None = None
    #: The context window: whatever a request refers to, no more than this is read.
    context: int | None = None
    #: The dearest image, at its highest detail.
    image: int = 16_384
    #: What the provider may add to a request that has no tools.
    hidden_input: int = 0
    #: It may think without showing it, and bills that.
    thinks_unseen: bool = False
    #: Its server is known to heed `max_completion_tokens`, the chat's newer bound of the output.
    heeds_new_bound: bool = False
    #: The most that it thinks beside the bound of its output.
    thoughts_beside: int = 0
    #: Its provider can be told where to answer, for all requests of an account, and takes more for it.
    knows_regions: bool = False


_MILLION: Final = 1_048_576


def _openai(output: int, context: int, image: int = 16_384, *, thinks: bool = False) -> ModelFacts:
    return ModelFacts(output, context, image, thinks_unseen=thinks, heeds_new_bound=True)


_GEMINI: Final = ModelFacts(65_536, _MILLION, thinks_unseen=True, heeds_new_bound=True)
_CLAUDE: Final = ModelFacts(128_000, 1_000_000, 5_000, heeds_new_bound=True)
# DashScope's: max_tokens bounds the answer without its chain of thought, which is 81,920 tokens at most.
_QWEN: Final = ModelFacts(None, _MILLION, thoughts_beside=81_920)
# Their chat templates have a system prompt of 500 tokens.
_MISTRAL: Final = ModelFacts(hidden_input=1_024)
_TABLE: Final[dict[str, ModelFacts]] = {
    "gpt-3.5": _openai(4_096, 16_385),
    "gpt-4": _openai(8_192, 32_768, 1_600),
    "gpt-4-32k": _openai(32_768, 32_768, 1_600),
    "gpt-4-turbo": _openai(4_096, 128_000, 1_600),
    "gpt-4.1": _openai(32_768, _MILLION, 4_000),
    "gpt-4.5": _openai(16_384, 128_000, 1_600),
    "gpt-4o": _openai(16_384, 128_000, 1_600),
    "gpt-4o-64k": _openai(65_536, 128_000, 1_600),
    "gpt-4o-mini": _openai(16_384, 128_000, 50_000),
    "gpt-5": _openai(128_000, 1_100_000, 12_000, thinks=True),
    "o1": _openai(100_000, 200_000, 4_000, thinks=True),
    "o3": _openai(100_000, 200_000, 4_000, thinks=True),
    "o4": _openai(100_000, 200_000, 4_000, thinks=True),
    "claude-3": ModelFacts(8_192, 200_000, 1_600, heeds_new_bound=True),
    "claude-3-7": ModelFacts(128_000, 200_000, 1_600, heeds_new_bound=True),
    "claude-sonnet-4": ModelFacts(65_536, 1_000_000, 5_000, heeds_new_bound=True),
    "claude-haiku-4": ModelFacts(65_536, 200_000, 5_000, heeds_new_bound=True),
    "claude-opus-4": _CLAUDE,
    # From 4.6 on they can be told where to answer; of later ones no more is known here.
    **dict.fromkeys(
        ("claude-opus-4-6", "claude-opus-4-7", "claude-opus-4-8"), replace(_CLAUDE, knows_regions=True)
    ),
    "claude-sonnet-4-6": replace(_CLAUDE, knows_regions=True),
    "claude": ModelFacts(hidden_input=128, heeds_new_bound=True, knows_regions=True),
    "gemini-1.5": ModelFacts(8_192, 2_097_152, heeds_new_bound=True),
    "gemini-2.0": ModelFacts(8_192, _MILLION, heeds_new_bound=True),
    "gemini-2.5": _GEMINI,
    "gemini-3": _GEMINI,
    "deepseek": ModelFacts(65_536, 163_840),
    "deepseek-v4": ModelFacts(None, _MILLION),
    "grok": ModelFacts(None, 2_000_000, hidden_input=1_024, thinks_unseen=True, heeds_new_bound=True),
    "mistral": _MISTRAL,
    "magistral": _MISTRAL,
    "devstral": _MISTRAL,
    "qwen-plus": _QWEN,
    "qwen-flash": _QWEN,
    "qwen-turbo": _QWEN,
    "qwq-plus": _QWEN,
}
# Chat templates of open models say who they are and which day it is, where the caller has no system prompt.
_UNKNOWN: Final = ModelFacts(hidden_input=128)
_BY_NAME: Final = sorted(
    ((name.replace(".", "-"), facts) for name, facts in _TABLE.items()), key=lambda item: -len(item[0])
)


@lru_cache(maxsize=512)
def facts_of(model: str) -> ModelFacts:
    """Of a model by the name that it is asked by."""
    name = model.rpartition("/")[2].lower().replace(".", "-")
    for known, facts in _BY_NAME:
        if name == known or (name.startswith(known) and not name[len(known)].isalnum()):
            return facts
        # gpt-4o and o1 have a letter or a version right behind what they begin with.
        if name.startswith(known) and known in ("gpt-4o", "gemini-3"):
            return facts
    return _UNKNOWN
