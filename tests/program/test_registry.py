"""`fleet:probe: registry`: a preview contacts those hosts alone that differ, are silent, or whose word is old."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pulumi
import pytest
import redis

from ai_client.coordination.host_report import HostReport
from ai_client.coordination.wire import Keys
from infra.plan import probe
from infra.playbook.request import RunRequest
from tests.client.coordination.engine import RealEngine, programs
from tests.client.service_rig import free_port
from tests.infra.stacks import HOST_KEY, KEY
from tests.program.stand import Declared, as_state, run

HOSTS = ("web-1", "web-2", "web-3")
STACK = "said"
RELEASE, CONFIG, KEY_DIGEST = "r" * 64, "c" * 64, "0123456789ab"
RESULT = {
    "release": RELEASE,
    "config_digest": CONFIG,
    "key_fingerprint": KEY_DIGEST,
    "key_next_fingerprint": "",
}
WORD = HostReport(release=RELEASE, config=CONFIG, key=KEY_DIGEST, files="sealed")


class Registry:
    """A real engine with what hosts said, and which hosts the program contacts."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.engine = RealEngine(
            programs()[0], folder, "--port", str(self.port), "--bind", "127.0.0.1"
        ).start()
        self.link = redis.Redis(port=self.port)
        self.contacted: list[str] = []
        for host in HOSTS:
            self.say(host)

    def say(self, host: str, text: str | None = None, *, age_s: int = 0, **changes: Any) -> None:
        word = {**json.loads(WORD.encode()), **changes}
        self.link.hset(Keys(STACK).reports, host, json.dumps(word) if text is None else text)
        self.link.hset(Keys(STACK).said, host, str(int(time.time()) - age_s))

    def execute(self, order: RunRequest) -> tuple[dict[str, Any], int]:
        self.contacted += order.hosts()
        return {host: {"changed": False} for host in order.hosts()}, 0

    def run(self, *, preview: bool, state: dict[str, Any] | None = None, **more: Any) -> Declared:
        hosts = {
            name: {"address": f"10.0.0.{n}", "hostKeys": [HOST_KEY]} for n, name in enumerate(HOSTS, start=1)
        }
        content = {
            "environment": "production",
            "apiKey": KEY,
            "account": {"rpm": 600},
            "groups": {"web": {"hosts": hosts, "share": 1}},
            "coordination": {"endpoint": f"redis://127.0.0.1:{self.port}"},
            "probe": "registry",
        }
        self.contacted.clear()
        return run(content | more, name=STACK, preview=preview, state=state)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    made = Registry(tmp_path)
    monkeypatch.setattr(probe, "execute", made.execute)
    yield made
    made.link.close()
    made.engine.stop()


@pytest.fixture
def state(registry: Registry) -> dict[str, Any]:
    """What a run left that went well on every host."""
    return as_state(registry.run(preview=False), dict.fromkeys(HOSTS, RESULT))


def test_hosts_that_say_what_was_applied_are_not_contacted(
    registry: Registry, state: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """And the preview says which way it looked."""
    with caplog.at_level(logging.INFO, logger="program-under-test"):
        made = registry.run(preview=True, state=state)
    assert registry.contacted == []
    assert {host: entry["state"] for host, entry in made.outputs["plan"].items()} == dict.fromkeys(
        HOSTS, "same"
    )
    assert "3 of 3 hosts reported within the last 60 s that they are as last applied" in caplog.text


@pytest.mark.parametrize(
    "says",
    [
        lambda registry: registry.say("web-2", config="d" * 64),
        lambda registry: registry.say("web-2", release="s" * 64),
        lambda registry: registry.say("web-2", key="ba9876543210"),
        lambda registry: registry.say("web-2", key_next="ba9876543210"),
        lambda registry: registry.say("web-2", files="changed"),
        lambda registry: registry.say("web-2", files="unknown"),
        lambda registry: registry.say("web-2", is_well=False),
        lambda registry: registry.say("web-2", is_well="yes"),
        lambda registry: registry.say("web-2", age_s=61),
        lambda registry: registry.say("web-2", age_s=-3600),
        lambda registry: registry.say("web-2", text="no JSON"),
        lambda registry: registry.link.hdel(Keys(STACK).reports, "web-2"),
        lambda registry: registry.link.hset(Keys(STACK).said, "web-2", "soon"),
    ],
)
def test_a_host_that_differs_is_silent_or_says_nothing_good_is_contacted(
    registry: Registry, state: dict[str, Any], says: Callable[[Registry], None]
) -> None:
    says(registry)
    registry.run(preview=True, state=state)
    assert registry.contacted == ["web-2"]


def test_every_host_is_contacted_where_something_else_is_declared(
    registry: Registry, state: dict[str, Any]
) -> None:
    """What they say is of what was applied."""
    registry.run(preview=True, state=state, vars={"ai_timeout": 12})
    assert sorted(registry.contacted) == list(HOSTS)


def test_up_contacts_every_host_whatever_they_say(registry: Registry, state: dict[str, Any]) -> None:
    """A host's own word never decides what `up` does to it."""
    registry.run(preview=False, state=state)
    assert sorted(registry.contacted) == list(HOSTS)


def test_without_its_engine_a_preview_contacts_all_and_says_why(
    registry: Registry, state: dict[str, Any]
) -> None:
    registry.engine.stop()
    made = registry.run(preview=True, state=state)
    assert sorted(registry.contacted) == list(HOSTS)
    assert "gives no answer (ConnectionError); every host was contacted" in str(made.warnings)


def test_a_registry_without_an_engine_is_refused() -> None:
    content = {"environment": "dev", "apiKey": KEY, "probe": "registry", "groups": {"web": {}}}
    with pytest.raises(pulumi.RunError, match="fleet:probe: is registry"):
        run(content, name=STACK, preview=True)
