import json
from typing import Any

from infra.state.last_run import Applied, Claimed, HostLimits, Recorded, from_resources

PARENT = "urn:pulumi:production::fleet::fleet:index:Deployment$command:local:Command::"


def command(**environment: str) -> dict[str, Any]:
    """A command resource as the engine answers it."""
    return {"type": "command:local:Command", "outputs": {"environment": environment}}


def test_a_state_without_resources_is_a_stack_before_its_first_run() -> None:
    """It owns nothing and has given nobody a limit."""
    assert from_resources({}) == Recorded()


def test_claims_and_limits_are_read_and_nothing_else() -> None:
    """A wave names its group, its hosts and their limits; Other resources do not count."""
    resources = {
        f"{PARENT}claim-web-prod-01": command(CLAIM="fleet/production/web-prod-01", ADDRESS="10.0.1.11"),
        f"{PARENT}claim-web-i-0abc": command(CLAIM="fleet/production/web"),
        f"{PARENT}web-1": command(GROUP="web", HOSTS="web-prod-01", RPM="420", TPM="0"),
        f"{PARENT}web-2": command(GROUP="web", HOSTS="web-prod-02,web-prod-03", RPM="420", TPM="0"),
        f"{PARENT}network": {"type": "command:local:Command", "outputs": {}},
        "urn:pulumi:production::fleet::pulumi:pulumi:Stack::fleet-production": {
            "type": "pulumi:pulumi:Stack",
            "outputs": {"hosts": {}},
        },
    }
    found = from_resources(resources)
    assert found.claims == {
        "claim-web-prod-01": Claimed(claim="fleet/production/web-prod-01", address="10.0.1.11"),
        "claim-web-i-0abc": Claimed(claim="fleet/production/web"),
    }
    assert found.limits == {f"web-prod-0{n}": HostLimits(group="web", rpm=420, tpm=0) for n in (1, 2, 3)}
    assert found.waves == {"web": (("web-prod-01",), ("web-prod-02", "web-prod-03"))}


def test_hosts_of_a_wave_may_have_limits_of_their_own() -> None:
    """One number is every host's; several are one each. The tenth wave comes after the second."""
    resources = {
        f"{PARENT}web-10": command(GROUP="web", HOSTS="c", RPM="7", TPM="0"),
        f"{PARENT}web-2": command(GROUP="web", HOSTS="a,b", RPM="5,6", TPM="9"),
    }
    found = from_resources(resources)
    assert {host: (limits.rpm, limits.tpm) for host, limits in found.limits.items()} == {
        "a": (5, 9),
        "b": (6, 9),
        "c": (7, 0),
    }
    assert found.waves == {"web": (("a", "b"), ("c",))}


def test_limits_of_models_are_read_from_what_the_run_was_told() -> None:
    """A host's own go before its group's, as Ansible has it; what is of another form limits nobody."""
    told = {"gpt": {"tokens_per_minute": 40, "burst_s": 10}}
    group = {
        "hosts": {"a": None, "b": {"ai_limits": {"gpt": {"tokens_per_minute": 9}}}, "c": {"ai_limits": 7}}
    }
    inventory = {"all": {"children": {"web": {**group, "vars": {"ai_limits": told}}}}}
    wave = command(GROUP="web", HOSTS="a,b,c", RPM="1", TPM="0")
    wave["outputs"] |= {"stdin": json.dumps({"inventory": inventory}), "stdout": ""}
    found = from_resources({f"{PARENT}web-1": wave}).limits
    assert {host: limits.models for host, limits in found.items()} == {
        "a": told,
        "b": {"gpt": {"tokens_per_minute": 9}},
        "c": {},
    }


def test_what_was_last_applied_is_read_host_by_host_without_the_key() -> None:
    """Of a run's order, which holds the key, only the inventory is kept."""
    order = {"inventory": {"all": {}}, "secrets": {"HOLYSHEEP_API_KEY": "hs_test_secret"}}
    wave = command(GROUP="web", HOSTS="a,b", RPM="1", TPM="0", CONTENT="c", KEY="k", KEY_NEXT="", NONCE="n")
    wave["outputs"] |= {"stdin": json.dumps(order), "stdout": json.dumps({"hosts": {"a": {"release": "r"}}})}
    found = from_resources({f"{PARENT}web-1": wave})
    applied = Applied(inventory={"all": {}}, content="c", key="k", key_next="", result={"release": "r"})
    assert found.applied["a"] == applied
    assert found.applied["b"].result == {}
    assert found.nonces == {"web-1": "n"}
    assert "hs_test_secret" not in repr(found)


def test_a_run_that_another_program_recorded_gives_nothing() -> None:
    """What cannot be read is not guessed."""
    wave = command(GROUP="web", HOSTS="a", RPM="1", TPM="0")
    assert from_resources({f"{PARENT}web-1": wave}).applied == {}
