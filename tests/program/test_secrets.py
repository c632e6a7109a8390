"""Secrets at any path: what the program declares holds them in secret inputs alone."""

import json
from typing import Any

from tests.infra.stacks import HOST_KEY, KEY
from tests.program.stand import Declared, as_state, run

PASSWORD, LOGIN = "s3cr3t-of-sudo", "http://me:s3cr3t-login@proxy:3128"


def config(password: str = PASSWORD) -> dict[str, Any]:
    hosts = {"web-1": {"address": "10.0.0.1", "hostKeys": [HOST_KEY], "vars": {"ai_proxy_url": LOGIN}}}
    return {
        "environment": "production",
        "apiKey": KEY,
        "probe": False,
        "vars": {"ansible_become_password": password},
        "groups": {"web": {"hosts": hosts}},
    }


def declared(config: dict[str, Any], **more: Any) -> Declared:
    return run(config, name="hidden", preview=False, secret=("apiKey", "vars", "groups"), **more)


def test_secrets_are_in_secret_inputs_and_nowhere_else() -> None:
    """Claims get what they become root with, runs all of it; outputs, visible inputs and warnings hold none."""
    made = declared(config())
    claim, wave = made.commands["claim-web-1"]["stdin"], made.commands["web-1"]["stdin"]
    assert PASSWORD in claim["secret"]
    assert "s3cr3t-login" not in claim["secret"]
    assert PASSWORD in wave["secret"]
    assert LOGIN in wave["secret"]
    for inputs in made.commands.values():
        inputs.pop("stdin")
    assert "s3cr3t" not in json.dumps(made.commands) + json.dumps(made.outputs) + str(made.warnings)


def test_a_changed_secret_is_seen_to_change_and_masked_in_the_plan() -> None:
    """A preview shows that it changes, on which hosts, and neither the old text nor the new one."""
    first = declared(config())
    state = as_state(first, {"web-1": {"release": "r"}})
    content = config()
    content["groups"]["web"]["hosts"]["web-1"]["vars"]["ai_proxy_url"] = "http://me:s3cr3t-other@proxy:3128"
    second = declared(content, state=state)
    before, after = (made.commands["web-1"]["environment"] for made in (first, second))
    assert {name for name in after if after[name] != before[name]} - {"NONCE"} == {"SECRETS"}
    changes = json.dumps(second.outputs["plan"]["web-1"])
    assert "proxy_url" in changes
    assert "s3cr3t" not in changes
    assert second.outputs["planDigest"] != first.outputs["planDigest"]


def test_a_stack_without_such_secrets_has_no_input_for_them() -> None:
    """Its claims stay readable, and no run changes because the program knows of secrets."""
    plain = config() | {"vars": {}}
    plain["groups"]["web"]["hosts"]["web-1"]["vars"] = {}
    made = run(plain, name="hidden", preview=False)
    assert isinstance(made.commands["claim-web-1"]["stdin"], str)
    assert "SECRETS" not in made.commands["web-1"]["environment"]
