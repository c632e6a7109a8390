"""Where an upstream answers, as its base URL tells it, and what its models cost there. Pure.

OpenAI's hosts of one country, Vertex's locations and Bedrock's regions are dearer than what is answered anywhere: the
line of a model says so by `regional=FACTOR`, and keeps the list price. Where a place is told with each request, as
Anthropic's is, usage tells of it instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from ai_client.settings.prices import ANY_MODEL, ModelPrice, at_one_place

if TYPE_CHECKING:
    from ai_client.settings.sections import Settings

_OPENAI: Final = re.compile(r"[a-z]+\.api\.openai\.com")
_VERTEX: Final = re.compile(r"(?:[a-z0-9-]+-)?aiplatform(?:\.[a-z]+\.rep)?\.googleapis\.com")
_LOCATION: Final = re.compile(r"/locations/([^/]+)")
_BEDROCK: Final = re.compile(r"bedrock-[a-z]+\.[a-z0-9-]+\.(?:amazonaws\.com(?:\.cn)?|api\.aws)")


def is_regional(base_url: str, model: str = "") -> bool:
    """Whether that is answered in one place alone; `model` is the upstream's own name of it."""
    parts = urlsplit(base_url.lower())
    host = parts.hostname or ""
    if _OPENAI.fullmatch(host):
        return True
    if _VERTEX.fullmatch(host):
        location = _LOCATION.search(parts.path)
        return location is not None and location[1] != "global"
    # Bedrock's profiles that answer anywhere have it in their names.
    return _BEDROCK.fullmatch(host) is not None and not model.startswith("global.")


def costs_where_answered(settings: Settings) -> dict[str, ModelPrice]:
    """`[model_costs]` as they are paid: lines of upstreams that answer in one place at that place's price.

    The line of all others is dearer as soon as one upstream is.
    """
    places = {each.name: (each.base_url, each.models) for each in settings.upstreams}
    places[""] = (settings.api.base_url, {})
    costs = settings.model_costs.items()
    return {name: at_one_place(price) if _is_dearer(name, places) else price for name, price in costs}


def _is_dearer(name: str, places: Mapping[str, tuple[str, Mapping[str, str]]]) -> bool:
    if name == ANY_MODEL:
        return any(is_regional(base_url) for base_url, _ in places.values())
    upstream, slash, model = name.partition("/")
    if not slash or upstream not in places:
        upstream, model = "", name
    base_url, models = places[upstream]
    return is_regional(base_url, models.get(model, model))
