"""A new key is tried at the provider before it is laid down."""

from __future__ import annotations

import pytest
from applier.on_host.keys import judge_key
from applier.on_host.masking import fingerprint

from ai_client.configure import health
from ai_client.errors import AuthenticationError, PermissionDeniedError, ServerError
from ai_client.settings import Settings
from tests.ansible.folder_host import KEY, KEY_2, Rig, Wanted, artefact, varied

GOOD = Wanted()
KEY_3 = "hs_test_third_key_00"
REFUSED = "refuses the key with 401; install a valid key and reload the service"


@pytest.mark.parametrize(
    ("wanted", "name"),
    [(varied(GOOD, key=KEY_2), "the key"), (varied(GOOD, key_next=KEY_2), "the next key")],
)
def test_a_key_that_the_provider_refuses_is_not_laid_down(rig: Rig, wanted: Wanted, name: str) -> None:
    """The keys before stay, nothing else of the run happens, and the error names the key by its fingerprint."""
    rig.ask(GOOD)
    before = rig.files()
    rig.host.answer_keys(**{KEY_2: REFUSED})
    answer = rig.ask(varied(wanted, config="[api]\ntimeout = 9\n", run="run-2"))
    assert (answer.failed, answer.changed, answer.rolled_back) == (True, False, False)
    assert f"{name} {fingerprint(KEY_2)}: the provider refuses the key with 401" in answer.message
    assert "hs_test_" not in answer.encode()
    changed = {path for path, seen in rig.files().items() if before.get(path) != seen}
    assert changed == {"etc/ai-client/releases.jsonl"}
    assert rig.host.state["running"]["ai-client.service"]["key"] == f"{KEY}\n"


def test_a_key_that_the_provider_takes_is_laid_down(rig: Rig) -> None:
    """Tried with the release that runs and the configuration that the key is for; just the key files change."""
    rig.ask(GOOD)
    answer = rig.ask(varied(GOOD, key=KEY_2, key_next=KEY_3, run="run-2"))
    assert (answer.failed, answer.changed) == (False, True)
    assert [change.path for change in answer.changes] == ["/etc/ai-client/key", "/etc/ai-client/key.next"]
    assert [(trial["name"], trial["outcome"]) for trial in answer.tried_keys] == [
        ("the key", "accepted"),
        ("the next key", "accepted"),
    ]
    assert rig.host.state["tried"] == [[GOOD.digest, GOOD.config, KEY_2], [GOOD.digest, GOOD.config, KEY_3]]
    assert rig.partial_files() == []


def test_a_provider_that_can_not_be_asked_gives_no_verdict_and_the_rotation_goes_on(rig: Rig) -> None:
    """An outage must not hold up a key that has to be replaced; the result says that it was not tried."""
    rig.ask(GOOD)
    rig.host.answer_keys(**{KEY_2: "http://upstream/v1/models answers 503; check [api] base_url"})
    answer = rig.ask(varied(GOOD, key=KEY_2, run="run-2"))
    assert not answer.failed
    assert answer.tried_keys[0]["outcome"] == "no verdict: http://upstream/v1/models answers 503"
    assert rig.path("/etc/ai-client/key").read_text() == f"{KEY_2}\n"


UPSTREAMS = """[api]
base_url = https://first.example/v1
[security]
verify_ssl = true
[upstream second.next]
key_file = /etc/ai-client/keys/second.next
base_url = https://second.example/v1
dialect = anthropic
models = a=b
[upstream unsigned]
base_url = http://127.0.0.1:1/v1
needs_key = false
[limit second.next]
rpm = 5
"""
AS_DEFAULT = (
    "[api]\nbase_url = https://second.example/v1\ndialect = anthropic\n"
    "[security]\nverify_ssl = true\n[caching]\n[logging]\n"
)


def with_upstreams(**keys: tuple[str, str]) -> Wanted:
    sent = {
        name.replace("_", "."): {"key": key, "next": following} for name, (key, following) in keys.items()
    }
    return varied(GOOD, config=UPSTREAMS, more={"upstream_keys": sent})


def test_the_key_of_another_upstream_is_tried_at_that_upstream(rig: Rig) -> None:
    """With its address and dialect, whatever its name; a key that signs nothing is not."""
    rig.ask(with_upstreams(second_next=(KEY, "")))
    answer = rig.ask(varied(with_upstreams(second_next=(KEY_2, KEY_3), unsigned=(KEY_2, "")), run="run-2"))
    assert (answer.failed, answer.changed) == (False, True)
    assert [(trial["name"], trial["outcome"]) for trial in answer.tried_keys] == [
        ("the key of upstream second.next", "accepted"),
        ("the next key of upstream second.next", "accepted"),
    ]
    assert rig.host.state["tried"] == [[GOOD.digest, AS_DEFAULT, KEY_2], [GOOD.digest, AS_DEFAULT, KEY_3]]
    assert rig.partial_files() == []


def test_a_key_that_another_upstream_refuses_is_not_laid_down(rig: Rig) -> None:
    """The key before stays, and the error names upstream and fingerprint."""
    rig.ask(with_upstreams(second_next=(KEY, "")))
    rig.host.answer_keys(**{KEY_2: REFUSED})
    answer = rig.ask(varied(with_upstreams(second_next=(KEY_2, "")), run="run-2"))
    assert (answer.failed, answer.changed) == (True, False)
    assert f"the key of upstream second.next {fingerprint(KEY_2)}: the provider refuses" in answer.message
    assert rig.path("/etc/ai-client/keys/second.next").read_text() == f"{KEY}\n"


def test_hosts_after_the_canary_try_no_key(rig: Rig) -> None:
    """It was tried there; hundreds of hosts do not ask the provider at once."""
    rig.ask(GOOD)
    rig.host.answer_keys(**{KEY_2: REFUSED})
    assert not rig.ask(varied(GOOD, key=KEY_2, tries_keys=False, run="run-2")).failed
    keys = with_upstreams(second_next=(KEY_2, ""))
    assert not rig.ask(varied(keys, key=KEY_2, tries_keys=False, run="run-3")).failed
    assert "tried" not in rig.host.state


def test_a_first_key_and_one_that_is_taken_away_are_not_tried(rig: Rig) -> None:
    """A host without a release has nothing to ask with, and no key to lose."""
    rig.ask(varied(GOOD, key_next=KEY_2))
    rig.ask(varied(GOOD, run="run-2"))
    rig.ask(varied(GOOD, packed=artefact(v="2"), run="run-3"))
    assert "tried" not in rig.host.state
    assert not rig.path("/etc/ai-client/key.next").exists()


def test_a_run_killed_while_it_tried_a_key_leaves_nothing(rig: Rig) -> None:
    """The next run removes what it had written."""
    rig.ask(GOOD)
    rig.path("/etc/ai-client/.ai-client-apply.try.conf").write_text(GOOD.config)
    rig.ask(varied(GOOD, run="run-2"))
    assert rig.partial_files() == []


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "accepted"),
        (AuthenticationError("the upstream", "says no"), "refuses the key with 401"),
        (PermissionDeniedError("the upstream", "says no"), "refuses the key with 403"),
        (ServerError("the upstream", "is broken", status=500), "no verdict: "),
    ],
)
async def test_the_words_of_the_clients_own_report_are_understood(
    error: Exception | None, outcome: str
) -> None:
    """The report that a release gives is what the verdict is read from."""

    async def probe() -> None:
        if error is not None:
            raise error

    report = {"upstream": await health.check_upstream(Settings(), probe=probe)}
    trial = judge_key("the key", "f" * 12, health.as_json(report))
    assert trial.outcome.startswith(outcome)
    assert bool(trial.refused) == outcome.startswith("refuses")
