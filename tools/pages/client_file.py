"""The keys of a host's `ai-client.conf`, from the client's own settings."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from pathlib import PurePath
from typing import Any

from ai_client.settings import sections
from infra.config.descriptions import DESCRIPTIONS
from infra.project_files import ROLE, role_variables
from tools.pages import markdown

_INTRO = """\
`/etc/ai-client/ai-client.conf`, which the role writes from [its variables](role-variables.md). `ai-client config
check` lists every mistake in it. In addition to the sections below, `[cost_tags]` takes any `NAME = VALUE`, and
`[model_costs]` one line for each model, or `*` for all others: `MODEL = DOLLARS` per million tokens, or members such
as `input=2, output=8, cached_input=0.5, cache_write=2.5, cache_write_1h=4, reasoning=8, audio_input=40,
audio_output=80, image_input=8, cached_image_input=2, image_output=32`, dollars each for `request=`, `image=`,
`search=` and `minute=` (of sound), dollars per million for `characters=` (of text that is read out), and tiers of
service by a factor (`flex=0.5`) or by member (`priority.output=14`). `long_from=200000, long.input=4, long.output=12`
is the price of a call with more input than `long_from`. A tier multiplies it, unless it has a factor of its own for a
long input (`fast.long=1`). What is left out costs as its kind of token does: a model with sound costs what its sound
does, unless `audio_input` and `audio_output` say more, and what a cache keeps for an hour 1.6 times what
`cache_write` says.

`regional=1.1` is what all tokens cost more where a call is answered in one place alone: always, at upstreams whose
`base_url` names one (`eu.api.openai.com`, Vertex's locations but `global`, Bedrock's regions for models without
`global.`); by request, where Anthropic's `inference_geo` is asked for or told with an answer. Without it such an
upstream costs what its line says, and `inference_geo` what Anthropic publishes: 1.1 times.

With `told_cost = true` the ledger books the cost that the upstream reports with an answer (OpenRouter's `usage.cost`,
xAI's `cost_in_usd_ticks`, Perplexity's `cost.total_cost`), if it reports one. Under a hard budget it must not exceed
the most that the call could cost by the price list. Set it only for an upstream whose bill you pay.

Under a hard budget (`hard_stop`) a request is sent only if its cost has an upper bound. Refused with a 400: a model,
a dearer tier or a place without a price, search and tools that the provider runs itself, other models to answer in
its place, stored prompts, files for models whose context window is not known, and passed-through requests that do
more than read. If neither caller nor model limits the output, or the caller sets only `max_completion_tokens`, which
some servers ignore, `max_tokens` is added."""

# No kind of value takes this, so each says what it wants instead.
_IMPOSSIBLE = "\0\n"
_TTL = "The same for this endpoint. Default: `ttl_seconds`."
_ALSO_KEYS = {
    f"{sections.UPSTREAM_PREFIX}NAME": "UpstreamSettings",
    f"{sections.LIMIT_PREFIX}NAME": "ModelLimitSettings",
}
_BUDGET = "Most dollars per {}{}; empty for no limit, 0 to allow no cost at all."
# Of keys that no role variable sets by itself, or that have another value for "none" than the variable has.
_MEANINGS = {
    ("performance", "token_limit"): "Tokens per minute that this host may send; empty for no limit.",
    ("budget", "daily_usd"): _BUDGET.format("day", ""),
    ("budget", "monthly_usd"): _BUDGET.format("month", ""),
    ("routing", "critical_share"): "Expected share of critical requests, reported beside the actual one.",
    ("batch", "spool_dir"): "The spool folder.",
    ("coordination", "password_file"): "File with that user's password.",
    (
        "coordination",
        "host",
    ): "Name of this host in the shared quota, unique among hosts; empty for its host name.",
    ("caching", "ttl_seconds_chat"): _TTL,
    ("caching", "ttl_seconds_completions"): _TTL,
    ("caching", "ttl_seconds_embeddings"): _TTL,
    ("logging", "format"): "Format of the log files.",
    ("logging", "rotation"): "When a new log file is started.",
    ("tenant NAME", "token_sha256"): "SHA-256 of the token that this tenant sends over TCP.",
    ("tenant NAME", "uid"): "User id of this tenant on the Unix socket.",
    (
        "tenant NAME",
        "rate_share",
    ): "Its weight while requests queue, relative to the other tenants'. Default: 1.",
    (
        "tenant NAME",
        "priority",
    ): "Priority of its requests if they name none: 0 is the most urgent, 9 the least.",
    ("tenant NAME", "daily_usd"): _BUDGET.format("day", " for this tenant"),
    ("tenant NAME", "monthly_usd"): _BUDGET.format("month", " for this tenant"),
    ("upstream NAME", "key_file"): "File with its key. Default: `/etc/ai-client/keys/NAME`.",
    (
        "upstream NAME",
        "models",
    ): "Its models, as `OURS=THEIRS` if callers use another name than the upstream.",
    ("upstream NAME", "told_cost"): "Book the cost that it reports with an answer (see above).",
    ("upstream NAME", "bills_cut_streams"): "It writes on, and bills all of it, if a stream is cut.",
}
_LINE = re.compile(r"^(\w+) = .*?\b(ai_\w+)")


def text() -> str:
    """The page."""
    variables = _variables()
    listed = {
        **sections.SECTIONS,
        f"{sections.TENANT_PREFIX}NAME": sections.TenantSettings,
        f"{sections.UPSTREAM_PREFIX}NAME": sections.UpstreamSettings,
        f"{sections.LIMIT_PREFIX}NAME": sections.LimitSettings,
    }
    return markdown.page(
        "The client's file",
        _INTRO,
        *(_section(name, section, variables) for name, section in listed.items()),
    )


def _section(name: str, section: type[Any], variables: dict[tuple[str, str], str]) -> str:
    rows = []
    for field in fields(section):
        if "key" in field.metadata:
            key = field.metadata["key"]
            meaning = _meaning(name, key, variables.get((name, key), ""))
            rows.append((f"`{key}`", _wanted(field.metadata["kind"]), _default(field.default), meaning))
    about = re.sub(r"\s+", " ", section.__doc__ or "").removeprefix(f"`[{name}]`: ")
    listed = markdown.table(("key", "value", "default", "meaning"), rows)
    return f"## `[{name}]`\n\n{about[:1].upper()}{about[1:].strip()}\n\n{listed}"


def _meaning(section: str, key: str, variable: str) -> str:
    """The role variable's words, or those of the stack's key that becomes this one."""
    own = _MEANINGS.get((section, key)) or DESCRIPTIONS.get(f"{_ALSO_KEYS.get(section)}.{key}")
    return own or markdown.from_ansible(str(role_variables().get(variable, {}).get("description", "")))


def _wanted(kind: Any) -> str:
    try:
        kind(_IMPOSSIBLE)
    except ValueError as error:
        return str(error).removeprefix("write ").replace("one of ", "")
    return "any text"


def _default(value: object) -> str:
    if value is MISSING:
        return ""
    return markdown.code(str(value) if isinstance(value, PurePath) else list(value) if value == () else value)


def _variables() -> dict[tuple[str, str], str]:
    """Role variable behind each section and key, read from the role's template."""
    found: dict[tuple[str, str], str] = {}
    section = ""
    for line in (ROLE / "templates" / "ai-client.conf.j2").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif match := _LINE.match(line):
            found[section, match[1]] = match[2]
    return found
