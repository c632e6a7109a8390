"""Releases that hosts are pinned to."""

import pytest

from infra.errors import SettingsError
from infra.playbook import pinned_releases
from tests.infra.stacks import VARIABLES, load, shipped

PIN = "f" * 64


@pytest.fixture(autouse=True)
def _known_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VARIABLES, "ai_client_digest", {"type": "str"})


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("", "fleet:vars.ai_client_digest"),
        ("ai_batch_workers", "fleet:groups.ai_batch_workers.vars.ai_client_digest"),
        (
            "ai_batch_workers/batch-worker-02",
            "fleet:groups.ai_batch_workers.hosts.batch-worker-02.vars.ai_client_digest",
        ),
    ],
)
def test_a_release_that_is_not_here_is_refused_by_the_key_that_pins_it(path: str, key: str) -> None:
    """Wherever the pin is written, the error says how to find or to build the release."""
    config = shipped("production")
    group, _, host = path.partition("/")
    place = config["groups"][group] if group else config
    place = place["hosts"][host] if host else place
    place.setdefault("vars", {})["ai_client_digest"] = PIN
    with pytest.raises(SettingsError) as refused:
        pinned_releases.check(load(config))
    assert refused.value.culprit == key
    assert PIN in refused.value.reason
    assert "tools/artefact/releases" in refused.value.remedy


def test_a_stack_without_pins_asks_nobody() -> None:
    """There is nothing to look for."""
    pinned_releases.check(load(shipped("production")))
    assert pinned_releases.in_inventory({"all": {"hosts": {"a": {"ai_rpm": 1}}}}) == frozenset()
    assert pinned_releases.folder_expression("/builds/now", ()) == "/builds/now"


def test_pins_are_found_at_every_scope_of_an_inventory() -> None:
    """Each host's folder is Ansible's to choose, by the pin that the host sees."""
    inventory = {
        "all": {
            "vars": {"ai_client_digest": "a"},
            "children": {
                "web": {"hosts": {"one": {"ai_client_digest": "b"}}, "vars": {"ai_client_digest": ""}}
            },
        }
    }
    assert pinned_releases.in_inventory(inventory) == {"a", "b"}


@pytest.mark.parametrize(("value", "builds"), [("own", True), ("auto", True), ("host", False), (None, False)])
def test_the_own_interpreter_is_built_where_a_host_may_run_it(value: str | None, builds: bool) -> None:
    """Wherever in the inventory it is asked for; it takes packages that nobody else needs."""
    variables = {} if value is None else {"ai_python": value}
    inventory = {"all": {"children": {"api": {"hosts": {"api-1": variables}}}}}
    assert pinned_releases.wants_own_python(inventory) is builds
