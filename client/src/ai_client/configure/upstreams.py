"""The upstreams as `[api]` and the `[upstream NAME]` sections have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from ai_client.configure import identity
from ai_client.configure.sources import Sources
from ai_client.contract.keys import KeyProvider
from ai_client.contract.upstreams import Dialect, Upstream
from ai_client.settings import ApiSettings, KeyPair, Settings, UpstreamSettings


def default_upstream(api: ApiSettings, keys: KeyProvider) -> Upstream:
    """The one of `[api]`."""
    return Upstream(
        base_url=api.base_url,
        keys=keys,
        dialect=Dialect(api.dialect),
        api_version=api.api_version,
        needs_key=api.needs_key,
        has_token=api.key_from in identity.KINDS,
        tells_cost=api.told_cost,
        bills_cut_streams=api.bills_cut_streams,
    )


def other_upstreams(
    settings: Settings, keys: Mapping[str, KeyPair], *, sources: Sources
) -> tuple[Upstream, ...]:
    """Those of the other sections, each with keys that are read anew where one is refused."""
    return tuple(_other(each, keys[each.name], sources) for each in settings.upstreams)


def rotate(upstreams: Sequence[Upstream], keys: Mapping[str, KeyPair]) -> None:
    """From the next attempts on these keys sign."""
    for each in upstreams:
        pair = keys.get(each.name)
        if pair is not None:
            following = None if pair.following is None else pair.following.secret
            each.keys.rotate(pair.current.secret, following=following)


def _other(settings: UpstreamSettings, keys: KeyPair, sources: Sources) -> Upstream:
    following = None if keys.following is None else keys.following.secret
    reload = partial(sources.fresh_key, settings)
    return Upstream(
        name=settings.name,
        base_url=settings.base_url,
        keys=KeyProvider(keys.current.secret, following=following, reload=reload),
        dialect=Dialect(settings.dialect),
        api_version=settings.api_version,
        needs_key=settings.needs_key,
        has_token=settings.key_from in identity.KINDS,
        tells_cost=settings.told_cost,
        bills_cut_streams=settings.bills_cut_streams,
        models=settings.models,
        order=settings.order,
        weight=settings.weight,
    )
