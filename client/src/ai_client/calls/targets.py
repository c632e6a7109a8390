"""Which upstreams may answer for a model, and in which order they are asked."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

from msgspec import Struct

from ai_client.contract.apis import Api
from ai_client.contract.upstreams import Upstream
from ai_client.dialects.upstream_dialects import speaks
from ai_client.errors import BadRequestError


class Target(Struct, frozen=True):
    """One model of one upstream."""

    upstream: Upstream
    #: The model as callers know it, as the upstream does, and as limits, prices and metrics name it.
    model: str
    name_there: str
    label: str


class Targets:
    """The upstreams of a client; the first is the default one."""

    def __init__(self, upstreams: Sequence[Upstream], *, random_source: random.Random) -> None:
        self.default = upstreams[0]
        self.upstreams: Mapping[str, Upstream] = {each.name: each for each in upstreams}
        self._random = random_source
        self._is_alone = len(upstreams) == 1 and not self.default.models

    def of(self, model: str, api: Api) -> tuple[Target, ...]:
        """Those that have `model` and speak `api`, at least one. Raises BadRequestError where there is none.

        `NAME/MODEL` is that upstream's alone. The default one is asked for what no other declares.
        """
        if self._is_alone:
            return (_target(self.default, model),)
        name, mark, rest = model.partition("/")
        named = self.upstreams.get(name) if mark and name else None
        if named is not None:
            return (_target(named, rest),) if speaks(named.dialect, api) else self._none(model, api, (named,))
        having = [each for each in self.upstreams.values() if self._has(each, model)] or [self.default]
        able = [each for each in having if speaks(each.dialect, api)]
        if not able:
            return self._none(model, api, having)
        return tuple(_target(each, model) for each in self._in_order(able))

    def at(self, name: str, model: str) -> Target | None:
        """That model of the upstream `name`, where there is such an upstream."""
        upstream = self.upstreams.get(name)
        if upstream is None:
            return None
        prefix = f"{name}/"
        plain = model.removeprefix(prefix) if name else model
        return _target(upstream, plain)

    def _has(self, upstream: Upstream, model: str) -> bool:
        return model in upstream.models or (upstream is self.default and not upstream.models)

    def _in_order(self, upstreams: list[Upstream]) -> list[Upstream]:
        if len(upstreams) == 1:
            return upstreams
        # The smallest of exponential times comes first with the probability of its weight (Efraimidis, Spirakis 2006).
        drawn = {each.name: -math.log(1.0 - self._random.random()) / each.weight for each in upstreams}
        return sorted(upstreams, key=lambda each: (each.order, drawn[each.name]))

    @staticmethod
    def _none(model: str, api: Api, having: Sequence[Upstream]) -> tuple[Target, ...]:
        names = ", ".join(f"{each.name or 'the default one'} ({each.dialect})" for each in having)
        raise BadRequestError(
            f"model {model}",
            f"is on an upstream that does not speak /v1/{api.route}: {names}",
            remedy="Ask another API of it, or name a model of an upstream that speaks this one.",
        )


def _target(upstream: Upstream, model: str) -> Target:
    return Target(upstream, model, upstream.models.get(model, model), upstream.label(model))
