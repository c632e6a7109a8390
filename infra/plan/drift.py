"""What is declared against what was last applied: which differences on a host are drift, and what a host that gives
no answer would get.

Everything here is a function of the state, the settings, and what hosts said.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from infra.errors import ContentError
from infra.plan import render
from infra.plan.finding import Difference, Finding, HostState, difference
from infra.secret_texts import reveal
from infra.state.last_run import Applied

#: What the message of a host says that gave no answer and whose plan is from the state.
FROM_LAST = "planned from what was last applied"
_LAST = "last applied"
_SILENT = frozenset({HostState.UNREACHABLE, HostState.FAILED, HostState.UNSEEN})
JUDGED = _SILENT | {HostState.DIFFERS}
_RELEASE = "/opt/ai-client/current"
# What of a run's variables decides more than the text of its files.
_BEYOND_FILES = (
    "ai_config_dir",
    "ai_cache_dir",
    "ai_log_dir",
    "ai_batch_spool_dir",
    "ai_custom_ca",
    "ai_cert_path",
    "ai_client_version",
    "ai_client_digest",
    "ai_claim",
    "ai_upstream_keys",
    "ai_upstream_keys_next",
    "ai_coordination_password",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a run puts on a host.

    Attributes:
        variables: the role's variables, as `render.host_variables` gives them.
        content: digest of role and release.
        key: fingerprint of the upstream key.
        key_next: fingerprint of the key that a rotation goes to, or "".
    """

    variables: Mapping[str, Any]
    content: str
    key: str
    key_next: str


def inputs_of(applied: Applied, host: str) -> Inputs:
    """What the last run put on a host."""
    return Inputs(
        variables=reveal(render.host_variables(applied.inventory, host), applied.secrets),
        content=applied.content,
        key=applied.key,
        key_next=applied.key_next,
    )


def judge(finding: Finding, host: str, *, last: Applied | None, now: Inputs) -> Finding:
    """The finding with its drift marked; of a host that gave no answer, with a plan from what was last applied.

    Args:
        finding: what a probe found.
        host: the host's name.
        last: what the last run left on it; None where no run of this stack ended well there.
        now: what the next run would put on it.
    """
    try:
        if finding.state is HostState.DIFFERS:
            return _with_drift_marked(finding, host, last=last, now=now)
        if finding.state in _SILENT:
            return _planned_from_last(finding, host, last=last, now=now)
    except ContentError as error:
        return replace(finding, message=_joined(finding.message, f"differences are not shown: {error}"))
    return finding


def _with_drift_marked(finding: Finding, host: str, *, last: Applied | None, now: Inputs) -> Finding:
    left = _left(finding, last)
    before = inputs_of(last, host) if last else None
    folder = now.variables["ai_config_dir"]
    config = f"{folder}/{render.CONFIG}"
    is_same_beyond = before is not None and _beyond(before) == _beyond(now)
    drifted = {
        config: _strays("config_digest", finding, left, wanted=_digest(render.files(now.variables)[config])),
        f"{folder}/key": _strays("key_fingerprint", finding, left, wanted=now.key),
        f"{folder}/key.next": _strays("key_next_fingerprint", finding, left, wanted=now.key_next),
        _RELEASE: is_same_beyond or _strays("release", finding, left, wanted=None),
    }
    return replace(
        finding,
        differences=tuple(
            replace(entry, is_drift=drifted.get(entry.path, is_same_beyond or _has_stopped(entry, left)))
            for entry in finding.differences
        ),
    )


def _left(finding: Finding, last: Applied | None) -> Mapping[str, Any]:
    """What the last run left on a host: by the host's own journal, which knows of runs that failed elsewhere too."""
    by_state = last.result if last else {}
    journal = finding.seen.get("journal") or {}
    return {**by_state, **{name: journal[name] for name in _IN_JOURNAL if name in journal}}


_IN_JOURNAL = ("release", "config_digest", "key_fingerprint", "key_next_fingerprint")


def _strays(name: str, finding: Finding, left: Mapping[str, Any], *, wanted: str | None) -> bool:
    """Whether the host is not as a run left it; where that is what is wanted still, any difference is of the host."""
    return name in left and (finding.seen.get(name) != left[name] or wanted == left[name])


def _has_stopped(entry: Difference, left: Mapping[str, Any]) -> bool:
    """Whether it is a unit that does not run: every run leaves all of them running."""
    return bool(left) and entry.path.startswith("unit ")


def _beyond(inputs: Inputs) -> tuple[object, ...]:
    """Everything of a run that decides more than the configuration file and the keys."""
    variables = inputs.variables
    units = {path: text for path, text in render.files(variables).items() if _is_unit(path)}
    return (inputs.content, units, [variables[name] for name in _BEYOND_FILES])


def _is_unit(path: str) -> bool:
    return not path.endswith(render.CONFIG)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _planned_from_last(finding: Finding, host: str, *, last: Applied | None, now: Inputs) -> Finding:
    if last is None:
        return replace(
            finding, message=_joined(finding.message, "the state has no earlier run of it to plan from")
        )
    before = inputs_of(last, host)
    said = FROM_LAST
    if before == now:
        return replace(finding, message=_joined(finding.message, said))
    if not _is_what_was_rendered(before, last):
        said += ", whose template has changed since"
    return replace(
        finding, message=_joined(finding.message, said), differences=tuple(_differences(before, now))
    )


def _is_what_was_rendered(before: Inputs, last: Applied) -> bool:
    config = f"{before.variables['ai_config_dir']}/{render.CONFIG}"
    recorded = last.result.get("config_digest")
    return not recorded or recorded == _digest(render.files(before.variables)[config])


def _differences(before: Inputs, now: Inputs) -> Iterator[Difference]:
    """What differs between two runs: files by their text, keys by their fingerprints, role and release by a digest."""
    old, new = (render.files(inputs.variables) for inputs in (before, now))
    folder = now.variables["ai_config_dir"]
    texts = [(path, old.get(path, ""), new.get(path, "")) for path in dict.fromkeys([*old, *new])]
    texts += [
        (f"{folder}/key", _named(before.key), _named(now.key)),
        (f"{folder}/key.next", _named(before.key_next), _named(now.key_next)),
        ("role and release", before.content, now.content),
        ("pinned release", before.variables["ai_client_digest"], now.variables["ai_client_digest"]),
    ]
    yield from (difference(path, was, will, side=_LAST) for path, was, will in texts if was != will)


def _named(fingerprint: str) -> str:
    return f"key {fingerprint}" if fingerprint else ""


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
