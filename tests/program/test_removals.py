"""A host leaves only when somebody says so: what the program declares after a state that has hosts."""

import json
from typing import Any

import pulumi
import pytest

from tests.infra.stacks import HOST_KEY, KEY
from tests.program.stand import Declared, as_state, run

OTHER_KEY = HOST_KEY.replace("AAAAC3", "BBBBC3")


def config(**hosts: dict[str, Any]) -> dict[str, Any]:
    named = {name.replace("_", "-"): {"hostKeys": [HOST_KEY], **host} for name, host in hosts.items()}
    return {"environment": "production", "apiKey": KEY, "probe": False, "groups": {"web": {"hosts": named}}}


BEFORE = config(web_1={"address": "10.0.0.1"}, web_2={"address": "10.0.0.2"})


@pytest.fixture(scope="module")
def before() -> Declared:
    return run(BEFORE, name="live", preview=False)


def after(before: Declared, config: dict[str, Any], *, preview: bool = True, name: str = "live") -> Declared:
    return run(config, name=name, preview=preview, state=as_state(before))


def inputs(declared: Declared) -> dict[str, Any]:
    """Inputs that the engine compares: the nonce is one that it ignores where nothing drifted."""
    compared = json.loads(json.dumps(declared.commands))
    for command in compared.values():
        command["environment"].pop("NONCE", None)
    return dict(compared)


def claims(declared: Declared) -> dict[str, str]:
    return {n: i["environment"]["ADDRESS"] for n, i in declared.commands.items() if n.startswith("claim-")}


def test_a_second_run_declares_the_same(before: Declared) -> None:
    """Nothing changed: no input does, so that a preview shows none."""
    assert inputs(after(before, BEFORE, preview=False)) == inputs(before)


def test_a_host_with_another_key_at_another_address_is_another_machine(before: Declared) -> None:
    """The old machine is named, and its claim leaves; today's gets one of its own."""
    moved = config(web_1={"address": "10.0.9.9", "hostKeys": [OTHER_KEY]}, web_2={"address": "10.0.0.2"})
    declared = after(before, moved)
    names = claims(declared)
    assert "claim-web-1" not in names
    assert sorted(names.values()) == ["10.0.0.2", "10.0.9.9"]
    assert any("web-1 (10.0.0.1)" in warning for warning in declared.warnings)
    with pytest.raises(pulumi.RunError, match="1 hosts would be removed"):
        after(before, moved | {"maxRemovals": 0})


def test_a_host_with_its_key_at_another_address_stays(before: Declared) -> None:
    """It is the same machine: its claim goes on."""
    declared = after(before, config(web_1={"address": "10.0.9.9"}, web_2={"address": "10.0.0.2"}))
    assert claims(declared) == {"claim-web-1": "10.0.9.9", "claim-web-2": "10.0.0.2"}
    assert declared.warnings == []


def test_a_renamed_host_goes_on_with_what_it_has(before: Declared) -> None:
    """No removal, no waiting for its own limits: the new name is deployed in the place of the old one."""
    shared = BEFORE | {"account": {"rpm": 100}, "maxRemovals": 0}
    shared["groups"] = {"web": BEFORE["groups"]["web"] | {"share": 1.0}}
    first = run(shared, name="live", preview=False)
    hosts = dict(BEFORE["groups"]["web"]["hosts"])
    hosts = {"new-1": hosts.pop("web-1"), **hosts}
    declared = after(first, shared | {"groups": {"web": {"hosts": hosts, "share": 1.0}}})
    assert declared.warnings == []
    assert declared.commands["web-1"]["environment"]["HOSTS"] == "new-1"


def test_a_renamed_stack_keeps_its_hosts(before: Declared) -> None:
    """Claims go on under the owner that the state recorded: nothing is removed, and no host refuses."""
    declared = after(before, BEFORE, name="renamed", preview=False)
    assert inputs(declared) == inputs(before)


def test_an_older_programs_state_keeps_its_owner(before: Declared) -> None:
    """Markers on its hosts name the stack alone."""
    state = json.loads(json.dumps(as_state(before)))
    for held in state.values():
        if "CLAIM" in held["outputs"]["environment"]:
            host = held["outputs"]["environment"]["CLAIM"].rpartition("/")[2]
            held["outputs"]["environment"]["CLAIM"] = f"fleet/live/{host}"
    declared = run(BEFORE, name="live", preview=False, state=state)
    found = {i["environment"]["CLAIM"] for i in declared.commands.values() if "CLAIM" in i["environment"]}
    assert found == {"fleet/live/web-1", "fleet/live/web-2"}


def test_hosts_of_another_state_are_taken_over_by_their_owners_name(before: Declared) -> None:
    """`pulumi config set owner …`, with what the refusal of the host names."""
    declared = run(BEFORE | {"owner": "fleet/lost@0123"}, name="live", preview=False)
    for name, inputs in declared.commands.items():
        text = inputs["stdin"]["secret"] if isinstance(inputs["stdin"], dict) else inputs["stdin"]
        assert "fleet/lost@0123" in text, name


def test_a_claim_says_whether_it_may_be_destroyed(before: Declared) -> None:
    """`destroy` runs no program: what the state recorded counts."""

    def may(declared: Declared) -> set[bool]:
        return {
            json.loads(inputs["stdin"])["may_clean_up"]
            for name, inputs in declared.commands.items()
            if name.startswith("claim-")
        }

    assert may(before) == {False}
    assert may(after(before, BEFORE | {"allowDestroy": True})) == {True}


def test_a_new_group_waits_while_hosts_leave_with_what_it_is_to_have(before: Declared) -> None:
    """A removal comes last in a run: the new host is claimed, and deployed by the next run."""
    shared = BEFORE | {"account": {"rpm": 100}, "maxRemovals": 2}
    shared["groups"] = {"web": BEFORE["groups"]["web"] | {"share": 1.0}}
    first = run(shared, name="live", preview=False)
    new = {"hosts": {"new-1": {"address": "10.0.3.1", "hostKeys": [HOST_KEY]}}, "share": 1.0}
    second = after(first, shared | {"groups": {"new": new}}, preview=False)
    assert set(second.commands) == {"claim-new-1"}
    assert any("new-1 are not deployed" in warning for warning in second.warnings)
    third = run(shared | {"groups": {"new": new}}, name="live", preview=False, state=as_state(second))
    assert third.commands["new-1"]["environment"]["RPM"] == "100"
