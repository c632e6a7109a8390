"""What the tests ask the sources for."""

from pathlib import Path
from typing import Any

from infra.config.schema import FleetSettings
from infra.config.upstream_key import FORM, is_key
from infra.key_sources.held import Wanted
from infra.key_sources.read import with_keys
from tests.infra.stacks import load, shipped

OLD = "hs_test_the_old_key"
NEXT = "hs_test_the_next_key"
# What a source may hold by mistake; no error may show it.
FOREIGN = "sk-something-else-0123456789"
WANTED = Wanted("fleet:keySource", is_key, FORM)


def keys(settings: FleetSettings) -> tuple[str | None, str | None]:
    """The key and the other key of a rotation."""
    held = (settings.api_key, settings.api_key_next)
    current, other = (key.get_secret_value() if key else None for key in held)
    return current, other


def kept(
    source: dict[str, Any], *, project: Path, environment: dict[str, str] | None = None
) -> FleetSettings:
    """Production with its key in a source."""
    settings = load(shipped("production") | {"keySource": source})
    return with_keys(settings, project=project, environment=environment or {})
