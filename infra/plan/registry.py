"""`fleet:probe: registry`: which hosts a preview need not contact, by what they say of themselves.

A host counts as unchanged where what is declared is what the state says was last applied to it, and where its own word
is young, well, and names just that. Whoever holds the engine's password can say anything in any host's name: so a word
is good for a preview alone, and `up` looks at every host whatever was said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from infra.config.precedence import Precedence
from infra.config.schema import FleetSettings
from infra.plan import render
from infra.plan.drift import Inputs
from infra.secret_texts import reveal
from infra.state.last_run import Applied

#: A host calls every 16 s. One whose word is older is contacted.
LONGEST_AGE_S = 60
_TIMEOUT_S = 5.0
# What the host's own word and the result of its last run name alike.
_SAME = (
    ("release", "release"),
    ("config", "config_digest"),
    ("key", "key_fingerprint"),
    ("key_next", "key_next_fingerprint"),
)


@dataclass(frozen=True, slots=True)
class Words:
    """What hosts say of themselves, by host, each with its age in seconds; `trouble` where that is not known."""

    by_host: Mapping[str, tuple[Mapping[str, Any], int]] = field(default_factory=dict)
    trouble: str = ""


def read(settings: FleetSettings) -> Words:
    """What the engine of `fleet:coordination` has. A fault is told, and all hosts are contacted then."""
    # Most runs go without.
    from redis import Redis  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.exceptions import RedisError  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    declared = settings.coordination
    if declared is None:
        return Words(trouble="there is no fleet:coordination, and so no registry")
    password = reveal(declared.password, settings.secrets)
    tag = f"{{ai-client:{declared.account or settings.stack}}}"
    options: dict[str, Any] = {"ssl_ca_certs": declared.ca_path} if declared.ca_path else {}
    try:
        with Redis.from_url(
            declared.endpoint,
            username=declared.user,
            password=password,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
            encoding_errors="replace",
            protocol=2,
            **options,
        ) as engine:
            texts, said = engine.hgetall(f"{tag}.words"), engine.hgetall(f"{tag}.said")
            now_s, _ = engine.time()
    except (RedisError, OSError, ValueError) as error:
        return Words(trouble=f"the engine of fleet:coordination gives no answer ({type(error).__name__})")
    return Words(dict(_read(texts, said, int(now_s))))


def _read(
    texts: Mapping[str, str], said: Mapping[str, str], now_s: int
) -> Iterator[tuple[str, tuple[Mapping[str, Any], int]]]:
    for host, text in texts.items():
        at = said.get(host, "")
        try:
            word = json.loads(text)
        except ValueError:
            continue
        if isinstance(word, dict) and at.isdecimal():
            # The engine's clock may have been set back.
            yield host, (word, abs(now_s - int(at)))


def is_unchanged(
    host: str, words: Words, *, last: Applied | None, before: Inputs | None, now: Inputs
) -> bool:
    """Whether a host need not be contacted.

    Args:
        host: its name.
        words: what all say.
        last: what was last applied to it, and `before` as the inputs of that run.
        before: None where no run ended well there.
        now: the inputs of the next run.
    """
    found = words.by_host.get(host)
    if found is None or last is None or before is None or _lasting(before) != _lasting(now):
        return False
    word, age_s = found
    if age_s > LONGEST_AGE_S or word.get("is_well", True) is not True or word.get("files") != "sealed":
        return False
    return all(last.result.get(theirs) == word.get(ours, "") for ours, theirs in _SAME) and bool(
        word.get("release")
    )


# How a change goes out, which changes nothing on a host that is as declared.
_MANNER = ("ai_gate_", "ai_try_keys", "ai_run")


def _lasting(inputs: Inputs) -> Inputs:
    variables = {name: value for name, value in inputs.variables.items() if not name.startswith(_MANNER)}
    return replace(inputs, variables=variables)


class LastInputs:
    """The inputs of the last run of each host; the hosts of a wave share one inventory, which is read once."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[Applied, Precedence]] = {}

    def of(self, applied: Applied, host: str) -> Inputs:
        """What the last run put on a host."""
        key = id(applied.inventory)
        if key not in self._seen:
            # The one who made it is kept: its number must not be given to another inventory.
            self._seen[key] = (applied, Precedence.of_inventory(applied.inventory))
        return Inputs(
            variables=reveal(render.role_view(self._seen[key][1], host), applied.secrets),
            content=applied.content,
            key=applied.key,
            key_next=applied.key_next,
        )
