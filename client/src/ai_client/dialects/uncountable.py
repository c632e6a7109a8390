"""What lets a provider bill what nobody can tell before: named, so that a hard budget can refuse it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from ai_client.contract.apis import PASS_THROUGH, api_of
from ai_client.contract.stores import Unbounded

_SEARCHES: Final = (
    "web_search_options",
    "search_parameters",
    "plugins",
    "mcp_servers",
    "data_sources",
    "enable_search",
    "search_options",
    "search_settings",
    "web_search",
    "enable_web_search",
    "compound_custom",
)
_OTHER_MODELS: Final = ("models", "fallbacks", "context_window_fallbacks", "preset")
# The caller's programs run these: the provider only asks for it. Of Anthropic's the version is left out.
_CALLERS_TOOLS: Final = frozenset(
    ("function", "custom", "local_shell", "apply_patch", "computer_use_preview")
)
_CALLERS_TOOLS_BEGIN: Final = ("bash_", "text_editor_", "memory_", "computer_2")
#: Names that the bound is made of: written in other letters they hold for servers in Go, and for no others.
_SMALL_LETTERS: Final = frozenset(
    name
    for names in (
        "model n best_of max_tokens max_completion_tokens max_output_tokens stream prompt prompt_embeds messages input",
        "inputs system documents query service_tier speed modalities prediction thinking reasoning background",
    )
    for name in names.split()
)


#: Bounds that some servers read in place of the usual ones: llama.cpp's, Ollama's, those of open models' servers.
_SERVERS_OWN: Final[Mapping[str, str]] = {
    "n_predict": "max_tokens",
    "num_predict": "max_tokens",
    "maxoutputtokens": "max_tokens",
    "max_length": "max_tokens",
    "options": "max_tokens",
    "parameters": "max_tokens",
    "n_cmpl": "n",
    "num_return_sequences": "n",
    "num_generations": "n",
    "candidate_count": "n",
    "candidatecount": "n",
    "use_beam_search": "n",
}


def in_other_letters(body: Mapping[str, Any]) -> Unbounded | None:
    """A name that some servers read and some don't."""
    for name in body:
        small = name.casefold()
        if small != name and small in _SMALL_LETTERS:
            return Unbounded(name, f"is read as {small} by some servers only", f"Write {small}.")
        if small in _SERVERS_OWN and body[name]:
            usual = _SERVERS_OWN[small]
            return Unbounded(name, f"takes the place of {usual} for some servers only", f"Write {usual}.")
    return None


def uncountable(endpoint: str, body: Mapping[str, Any]) -> Unbounded | None:
    """The first thing of that kind; None where there is none. The body's names are in small letters."""
    for name in _SEARCHES:
        if body.get(name):
            return Unbounded(name, "lets the provider search and read as much as it likes")
    for name in _OTHER_MODELS:
        if body.get(name):
            return Unbounded(name, "lets the provider answer with another model, at another price")
    model = body.get("model")
    if isinstance(model, str) and (model.endswith(":online") or model.startswith("@preset/")):
        return Unbounded("model", "asks OpenRouter for what costs more than the model")
    return _of_tools(body) or _of_members(endpoint, body)


def _of_tools(body: Mapping[str, Any]) -> Unbounded | None:
    tools = body.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        if not _is_callers(tool):
            return Unbounded("tools", "holds a tool that the provider runs itself, as often as it likes")
    return None


def _is_callers(tool: object) -> bool:
    """Whether the caller runs it: it then costs the tokens of its description alone."""
    if not isinstance(tool, Mapping):
        return False
    kind = tool.get("type")
    if kind is None:
        # Gemini's own tools are one member with the tool's name.
        return "function" in tool or ("name" in tool and ("input_schema" in tool or "parameters" in tool))
    return isinstance(kind, str) and (kind in _CALLERS_TOOLS or kind.startswith(_CALLERS_TOOLS_BEGIN))


def _of_members(endpoint: str, body: Mapping[str, Any]) -> Unbounded | None:
    for name, is_meant, reason in _MEMBERS:
        if is_meant(body.get(name)):
            return Unbounded(name, reason)
    if api_of(endpoint).endpoint == PASS_THROUGH:
        return Unbounded("path", "is passed through: what it costs is not known here")
    return None


def _is_harmless(extra: object) -> bool:
    """Google's settings for thoughts, which are bounded as output is."""
    if not isinstance(extra, Mapping) or set(extra) != {"google"}:
        return False
    google = extra["google"]
    return isinstance(google, Mapping) and set(google) <= {"thinking_config", "thought_tag_marker"}


_HIDDEN: Final = "may hold bounds, tools and models that only some providers read"
#: Members of a body, which of their values are meant, and what they do.
_MEMBERS: Final[tuple[tuple[str, Callable[[Any], bool], str], ...]] = (
    # Of the responses API; a completion's prompt is text, tokens, or a list of those.
    (
        "prompt",
        lambda value: isinstance(value, Mapping),
        "is stored with the provider, and may hold a model and tools of its own",
    ),
    ("chat_template", bool, "may make any number of tokens of the messages"),
    ("extra_body", lambda value: bool(value) and not _is_harmless(value), _HIDDEN),
    ("generation_config", bool, _HIDDEN),
    ("generationconfig", bool, _HIDDEN),
    (
        "context_management",
        lambda value: "compact" in str(value),
        "has the provider summarise, as often as it likes",
    ),
)
