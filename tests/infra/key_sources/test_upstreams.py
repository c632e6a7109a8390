from pathlib import Path
from typing import Any

import pytest

from infra.errors import KeySourceError, SettingsError
from infra.key_sources.read import with_keys
from infra.secret_texts import reveal
from tests.infra.key_sources.wanted import FOREIGN
from tests.infra.stacks import load, shipped

NEXT = "sk-the-next-one-0123456789"


def stack(upstream: dict[str, Any]) -> dict[str, Any]:
    """Production with another provider beside the default one."""
    return shipped("production") | {
        "upstreams": {"router": {"baseUrl": "https://openrouter.ai/api/v1"} | upstream}
    }


def test_every_upstreams_key_may_be_kept_elsewhere(tmp_path: Path) -> None:
    """Both keys of a rotation reach the role as its variables, by expressions: no text of them is in the settings."""
    (tmp_path / "key").write_text(FOREIGN)
    (tmp_path / "next").write_text(NEXT)
    source = {"command": {"argv": ["cat", "key"], "nextArgv": ["cat", "next"]}}
    settings = with_keys(load(stack({"keySource": source, "keyPrefix": "sk-"})), project=tmp_path)
    shown = settings.model_dump_json()
    assert FOREIGN not in shown + repr(settings)
    revealed = reveal(settings.vars, settings.secrets)
    assert revealed["ai_upstream_keys"] == {"router": FOREIGN}
    assert revealed["ai_upstream_keys_next"] == {"router": NEXT}
    assert "key_source" not in str(settings.vars["ai_upstreams"])


def test_a_key_of_another_provider_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(FOREIGN)
    source = {"command": {"argv": ["cat", "key"]}}
    with pytest.raises(
        KeySourceError, match=r"fleet:upstreams.router.keySource: .*starts with sk-or-"
    ) as raised:
        with_keys(load(stack({"keySource": source, "keyPrefix": "sk-or-"})), project=tmp_path)
    assert FOREIGN not in str(raised.value)


def test_an_upstreams_key_has_one_source() -> None:
    held = {"apiKey": FOREIGN, "keySource": {"command": {"argv": ["cat"]}}}
    with pytest.raises(SettingsError, match=r"keySource: is set beside fleet:upstreams.router.apiKey"):
        load(stack(held), secret=("upstreams",), secret_paths={"fleet:upstreams": [("router", "apiKey")]})
    with pytest.raises(
        SettingsError, match=r"router.apiKey: is missing; .*, say where it is kept with keySource"
    ):
        load(stack({}))
