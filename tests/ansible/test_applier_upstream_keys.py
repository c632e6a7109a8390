"""The keys of other upstreams: each in a file of its own, and none of anybody else's touched."""

from __future__ import annotations

from typing import Any

import pytest
from applier.on_controller.delivery import make_delivery
from applier.on_controller.errors import DeliveryError
from applier.on_host.errors import ApplyError
from applier.on_host.request import parse_request

from tests.ansible.folder_host import KEY, Rig, Wanted

FIRST, SECOND = "a-key/of+another==", "the-following-key"
FOLDER = "/etc/ai-client/keys"


def wanted(**keys: dict[str, str]) -> Wanted:
    """The usual host, with these keys of other upstreams."""
    return Wanted(more={"upstream_keys": keys})


def test_keys_are_laid_down_changed_and_taken_away(rig: Rig) -> None:
    """The service is told to reload; no answer shows a key; a second run changes nothing."""
    rig.ask(Wanted())
    both = wanted(router={"key": FIRST, "next": SECOND}, own={"key": SECOND, "next": ""})
    answer = rig.ask(both)
    assert not answer.failed
    assert rig.path(f"{FOLDER}/router").read_text() == f"{FIRST}\n"
    assert rig.path(f"{FOLDER}/router.next").read_text() == f"{SECOND}\n"
    assert rig.path(f"{FOLDER}/own").stat().st_mode & 0o777 == 0o640
    assert FIRST not in answer.encode()
    assert SECOND not in answer.encode()
    assert not rig.ask(both).changed
    rotated = rig.ask(wanted(router={"key": SECOND, "next": ""}))
    assert sorted(change.path for change in rotated.changes) == [
        f"{FOLDER}/own",
        f"{FOLDER}/router",
        f"{FOLDER}/router.next",
    ]
    assert rig.path(f"{FOLDER}/router").read_text() == f"{SECOND}\n"
    assert not rig.path(f"{FOLDER}/own").exists()


def test_a_file_of_somebody_elses_stays(rig: Rig) -> None:
    """What this project did not lay down it does not remove."""
    rig.ask(wanted(router={"key": FIRST, "next": ""}))
    rig.path(f"{FOLDER}/mine").write_text("kept\n")
    rig.ask(Wanted())
    assert rig.path(f"{FOLDER}/mine").read_text() == "kept\n"
    assert not rig.path(f"{FOLDER}/router").exists()


def test_a_name_never_leads_out_of_the_folder() -> None:
    """Neither on the host nor on the controller."""
    with pytest.raises(ApplyError, match="not the name of an upstream"):
        parse_request(wanted(**{"../key": {"key": FIRST, "next": ""}}).encode(), Wanted().manner())
    with pytest.raises(DeliveryError, match="not the name of an upstream"):
        sent({"../key": FIRST})


def test_the_controller_sends_what_is_a_key() -> None:
    """By name, with the one that follows; an empty one is none, and a wrong one is not shown."""
    assert sent({"b": f" {FIRST}\n", "a": ""}, {"b": SECOND}) == {"b": {"key": FIRST, "next": SECOND}}
    with pytest.raises(DeliveryError) as raised:
        sent({"b": "two words of a key"})
    assert "ai_upstream_keys.b" in str(raised.value)
    assert "words" not in str(raised.value)


def sent(keys: dict[str, str], following: dict[str, str] | None = None) -> Any:
    """What a host is sent of these."""
    secrets = {"ai_api_key": KEY, "ai_upstream_keys": keys, "ai_upstream_keys_next": following or {}}
    values = {"ai_claim": "a", "ai_claim_owner": "b", "ai_enable_metrics": False}
    folders = {f"ai_{name}_dir": f"/srv/{name}" for name in ("config", "cache", "log")}
    made = make_delivery(
        mode="apply",
        parts=frozenset({"secrets"}),
        check=False,
        values=values | folders,
        secrets=secrets,
        templates={},
    )
    return made.request["upstream_keys"]
