"""From the text of a configuration file to `Settings`, or to one error that names every fault at once."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ai_client.platform.given_file import read_given
from ai_client.settings import ini, kinds
from ai_client.settings.ini import Document, Entry, Problem
from ai_client.settings.prices import ANY_MODEL, price_of
from ai_client.settings.sections import (
    FREE_SECTIONS,
    LIMIT_PREFIX,
    LIST_PRICES,
    NAMED_SECTIONS,
    SECTIONS,
    TENANT_PREFIX,
    UPSTREAM_PREFIX,
    LimitSettings,
    Settings,
    TenantSettings,
    UpstreamSettings,
    keys_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

Named = TypeVar("Named", TenantSettings, UpstreamSettings, LimitSettings)

DEFAULT_PATH = Path("/etc/ai-client/ai-client.conf")

#: The engine's scripts count nano-dollars exactly up to 2^53.
MOST_SHARED_USD = 4_000_000

_KEY_NAMES = frozenset({"key", "api_key", "apikey", "token", "secret", "password", "holysheep_api_key"})
_KEY_TEXT = re.compile(r"\b(hs_(live|test)_|sk-)\w")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ARTICLES = {TENANT_PREFIX: "a tenant", UPSTREAM_PREFIX: "an upstream", LIMIT_PREFIX: "a model"}
_NAMES = {
    TENANT_PREFIX: _NAME,
    UPSTREAM_PREFIX: _NAME,
    LIMIT_PREFIX: re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,190}"),
}


class ConfigError(Exception):
    """The configuration can't be used. `problems` has every fault; the text names them all, a line each."""

    def __init__(self, *, path: str, problems: tuple[Problem, ...]) -> None:
        self.path = path
        self.problems = problems
        super().__init__("\n".join(problem.describe(path) for problem in problems))


def load(path: Path) -> Settings:
    """Read a file. Raises ConfigError where it is missing, unreadable or wrong."""
    return of_bytes(read_config(path), path=path)


def read_config(path: Path) -> bytes:
    """What a file holds. Raises ConfigError where it is missing or unreadable."""
    try:
        return read_given(path)
    except OSError as exc:
        remedies = {
            PermissionError: "run it as root or as the service's user",
            IsADirectoryError: "name the file in it with --config",
            TimeoutError: "write a file, by a rename",
        }
        remedy = remedies.get(type(exc), "write the file, or name it with --config")
        problem = Problem(None, None, None, f"can't be read ({exc.strerror})", remedy)
        raise ConfigError(path=str(path), problems=(problem,)) from exc


def of_bytes(data: bytes, *, path: Path) -> Settings:
    """Read what a file holds; `path` only names it in errors."""
    try:
        text = data.decode()
    except UnicodeDecodeError as exc:
        line = data[: exc.start].count(b"\n") + 1
        problem = Problem(line, None, None, "is not UTF-8", "save the file as UTF-8")
        raise ConfigError(path=str(path), problems=(problem,)) from exc
    return loads(text, path=str(path))


def has_entries(data: bytes) -> bool:
    """Whether a file says anything: a comment does not, nor does a section's header alone."""
    lines = (line.strip() for line in data.splitlines())
    return any(line and not line.startswith((b"#", b";", b"[")) for line in lines)


def loads(text: str, *, path: str) -> Settings:
    """Read a text; `path` only names it in errors."""
    document = ini.parse(text)
    values, problems = _read(document)
    problems = [*document.problems, *problems, *_section_problems(document)]
    settings = None if problems else _assemble(values, document)
    if settings is not None:
        problems = _contradictions(settings, document)
    if settings is None or problems:
        raise ConfigError(path=path, problems=tuple(sorted(problems, key=lambda problem: problem.line or 0)))
    return settings


def _read(document: Document) -> tuple[dict[str, dict[str, Any]], list[Problem]]:
    values: dict[str, dict[str, Any]] = {}
    problems: list[Problem] = []
    for entry in document.entries:
        if not _is_known(entry.section):
            continue  # its header is a problem already
        if _holds_key(entry):
            problems.append(_key_in_file(entry))
            continue
        known = _keys(entry.section)
        if entry.section not in FREE_SECTIONS and entry.key not in known:
            remedy = _suggest(entry.key, known)
            problems.append(
                Problem(entry.line, entry.section, entry.key, "is not a key of this section", remedy)
            )
            continue
        try:
            name, value = _convert(entry)
        except ValueError as exc:
            reason = _value_reason(entry.value)
            problems.append(Problem(entry.line, entry.section, entry.key, reason, str(exc)))
            continue
        values.setdefault(entry.section, {})[name] = value
    return values, problems


def _holds_key(entry: Entry) -> bool:
    return entry.key.lower() in _KEY_NAMES or _KEY_TEXT.search(f"{entry.key} {entry.value}") is not None


def _key_in_file(entry: Entry) -> Problem:
    shown = entry.key if _KEY_TEXT.search(entry.key) is None else None
    remedy = "put the key in /etc/ai-client/key, name a file with --key-file, or set AI_CLIENT_API_KEY"
    return Problem(entry.line, entry.section, shown, "a key does not belong in this file", remedy)


def _convert(entry: Entry) -> tuple[str, Any]:
    if entry.section == "model_costs":
        return entry.key if entry.key == ANY_MODEL else kinds.model(entry.key), price_of(entry.value)
    if entry.section == "cost_tags":
        return kinds.word(entry.key), kinds.word(entry.value)
    name, kind = _keys(entry.section)[entry.key]
    return name, kind(entry.value)


def _value_reason(value: str) -> str:
    if not value:
        return "has no value"
    # An address may hold a password.
    shown = "" if "@" in value or len(value) > 80 else f" `{value}`"
    return f"the value{shown} can't be used"


def _keys(section: str) -> dict[str, tuple[str, kinds.Kind]]:
    for prefix, kind in NAMED_SECTIONS.items():
        if section.startswith(prefix):
            return keys_of(kind)
    return keys_of(SECTIONS[section]) if section in SECTIONS else {}


def _is_known(section: str) -> bool:
    return section in SECTIONS or section in FREE_SECTIONS or section.startswith(tuple(NAMED_SECTIONS))


def _suggest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean `{near[0]}`?" if near else f"known are: {', '.join(known)}"


def _section_problems(document: Document) -> list[Problem]:
    problems = []
    for section, line in document.sections.items():
        if not _is_known(section):
            remedy = _suggest(
                section, [*SECTIONS, *FREE_SECTIONS, "tenant NAME", "upstream NAME", "limit NAME"]
            )
            problems.append(Problem(line, section, None, "this section is not known", remedy))
            continue
        prefix = next((each for each in NAMED_SECTIONS if section.startswith(each)), None)
        if prefix is not None and not _NAMES[prefix].fullmatch(section.removeprefix(prefix)):
            remedy = "use letters, digits, dot, dash and underscore, up to 63"
            problems.append(Problem(line, section, None, f"is not {_ARTICLES[prefix]}'s name", remedy))
    return problems


def _assemble(values: dict[str, dict[str, Any]], document: Document) -> Settings:
    parts: dict[str, Any] = {name: cls(**values.get(name, {})) for name, cls in SECTIONS.items()}
    return Settings(
        **parts,
        tenants=_named(TenantSettings, TENANT_PREFIX, values, document),
        upstreams=_named(UpstreamSettings, UPSTREAM_PREFIX, values, document),
        limits=_named(LimitSettings, LIMIT_PREFIX, values, document),
        model_costs=LIST_PRICES | values.get("model_costs", {}),
        cost_tags=values.get("cost_tags", {}),
    )


def _named(
    kind: type[Named], prefix: str, values: dict[str, dict[str, Any]], document: Document
) -> tuple[Named, ...]:
    return tuple(
        kind(name=section.removeprefix(prefix), **values.get(section, {}))
        for section in document.sections
        if section.startswith(prefix)
    )


def _contradictions(settings: Settings, document: Document) -> list[Problem]:
    """Values that are fine alone and impossible together."""
    found: list[tuple[str, str | None, str, str]] = []
    api, gateway, monitoring = settings.api, settings.gateway, settings.monitoring
    if api.keepalive_connections > api.connection_pool_size:
        reason = f"{api.keepalive_connections} connections can't be kept of {api.connection_pool_size}"
        found.append(("api", "keepalive_connections", reason, "lower it to connection_pool_size or less"))
    if gateway.port and monitoring.enable_metrics and gateway.port == monitoring.metrics_port:
        found.append(
            ("gateway", "port", "is also monitoring's metrics_port", "give one of them another port")
        )
    if sum(tenant.rate_share or 0 for tenant in settings.tenants) > 1 + 1e-9:
        last = TENANT_PREFIX + settings.tenants[-1].name
        found.append((last, "rate_share", "the tenants' shares sum to more than 1", "lower some of them"))
    found.extend(_tenant_contradictions(settings.tenants))
    found.extend(_budget_contradictions(settings))
    found.extend(
        (UPSTREAM_PREFIX + each.name, None, "has no base_url", "say where it is, as https://HOST/v1")
        for each in settings.upstreams
        if not each.base_url
    )
    return [
        Problem(_line_of(document, section, key), section, key, reason, remedy)
        for section, key, reason, remedy in found
    ]


def _budget_contradictions(settings: Settings) -> list[tuple[str, str | None, str, str]]:
    """Budgets that hosts are to share and can't."""
    budget = settings.budget
    if not budget.shared:
        return []
    found: list[tuple[str, str | None, str, str]] = []
    if settings.coordination.endpoint is None:
        remedy = "set endpoint in [coordination], or shared = false"
        found.append(("budget", "shared", "needs an engine that hosts share budgets over", remedy))
    if not budget.hard_stop:
        remedy = "set hard_stop = true, or shared = false"
        found.append(("budget", "shared", "is of no use where a spent budget stops nothing", remedy))
    named = [("budget", budget), *((TENANT_PREFIX + tenant.name, tenant) for tenant in settings.tenants)]
    for section, owner in named:
        for key in ("daily_usd", "monthly_usd"):
            if (getattr(owner, key) or 0) > MOST_SHARED_USD:
                reason = f"is more than the {MOST_SHARED_USD:,} dollars that a shared budget may have"
                found.append((section, key, reason, "lower it, or set shared = false in [budget]"))
    return found


def _tenant_contradictions(tenants: tuple[TenantSettings, ...]) -> list[tuple[str, str | None, str, str]]:
    found: list[tuple[str, str | None, str, str]] = []
    seen: dict[object, str] = {}
    for tenant in tenants:
        section = TENANT_PREFIX + tenant.name
        if tenant.uid is None and tenant.token_sha256 is None:
            found.append((section, None, "nobody can be this tenant", "set uid, token_sha256 or both"))
        for key, value in (("uid", tenant.uid), ("token_sha256", tenant.token_sha256)):
            if value is not None and value in seen:
                reason = f"is also that of tenant {seen[value]}"
                found.append((section, key, reason, "give every tenant its own"))
            if value is not None:
                seen[value] = tenant.name
    return found


def _line_of(document: Document, section: str, key: str | None) -> int | None:
    for entry in document.entries:
        if (entry.section, entry.key) == (section, key):
            return entry.line
    return document.sections.get(section)
