import getpass
import json
import os
import socket

import pulumi
import pytest

from tests.infra.stacks import KEY, PROJECT, shipped
from tests.program.stand import Declared, run

TARGETS = [
    "web-prod-01",
    "web-prod-02",
    "web-prod-03",
    "api-prod-01",
    "api-prod-02",
    "batch-worker-01",
    "batch-worker-02",
]


@pytest.fixture(scope="module")
def dev() -> Declared:
    config = shipped("dev") | {"apiKey": KEY}
    return run(config, name="mocked", preview=False)


def test_production_previews_without_key_and_names_what_up_needs() -> None:
    """The shipped stack has no key and no host keys: its preview goes through and lists both."""
    declared = run(shipped("production"), name="production", preview=True)
    assert [warning.split(":")[1].strip() for warning in declared.warnings] == ["fleet", "hostKeys"]
    assert len(declared.outputs["blockers"]) == 2
    assert all(f"claim-{host}" in declared.commands for host in TARGETS)


def test_production_refuses_up_until_it_is_complete() -> None:
    """Without a key nothing is declared: `up` ends with the first thing that is missing."""
    with pytest.raises(
        pulumi.RunError, match=r"fleet:apiKey: no upstream key .*pulumi config set --secret apiKey"
    ):
        run(shipped("production"), name="production", preview=False)


def test_a_wrong_setting_ends_the_program_before_any_resource() -> None:
    """An error of the configuration is one line without a traceback."""
    with pytest.raises(
        pulumi.RunError, match=r"^fleet:maxRemoval: unknown key; did you mean 'maxRemovals'\?$"
    ):
        run(shipped("production") | {"maxRemoval": 3}, name="production", preview=True)


def test_every_host_has_a_claim_that_does_nothing_but_decommission(dev: Declared) -> None:
    """Making and updating a claim runs nothing; only its removal does. It is never replaced."""
    claims = {name: inputs for name, inputs in dev.commands.items() if name.startswith("claim-")}
    assert sorted(claims) == ["claim-api-dev-01", "claim-api-dev-02", "claim-batch-dev-01"]
    for name, inputs in claims.items():
        assert inputs["create"] == inputs["update"] == "exit 0"
        assert "triggers" not in inputs
        order = json.loads(inputs["stdin"])
        assert order["playbook"] == "ansible/ai-client-decommission.yml"
        assert list(order["inventory"]["all"]["hosts"]) == [name.removeprefix("claim-")]


def test_a_group_is_deployed_canary_first(dev: Declared) -> None:
    """Waves of a group in order, groups apart from each other."""
    waves = {
        n: i["environment"]["HOSTS"] for n, i in dev.commands.items() if "HOSTS" in i.get("environment", {})
    }
    assert waves == {
        "ai_api_clients-1": "api-dev-01",
        "ai_api_clients-2": "api-dev-02",
        "ai_batch_workers-1": "batch-dev-01",
    }


def test_a_cordoned_host_keeps_its_claim_and_gets_no_run() -> None:
    """It is no removal, is named in the plan, and its group's other hosts go on without it."""
    config = shipped("dev") | {"apiKey": KEY, "cordon": ["api-dev-01"]}
    declared = run(config, name="mocked", preview=False)
    assert "claim-api-dev-01" in declared.commands
    waves = {n: i["environment"].get("HOSTS") for n, i in declared.commands.items() if n.startswith("ai_")}
    assert waves == {"ai_api_clients-1": "api-dev-02", "ai_batch_workers-1": "batch-dev-01"}
    assert declared.outputs["plan"]["api-dev-01"]["state"] == "cordoned"


def test_the_key_is_in_no_input_that_is_not_secret(dev: Declared) -> None:
    """The key travels in the secret standard input of a deploy, and nowhere else."""
    holders = set()
    for name, inputs in dev.commands.items():
        for field, value in inputs.items():
            if isinstance(value, dict) and "secret" in value:
                holders.add((name, field))
                assert KEY in value["secret"]
            else:
                assert KEY not in json.dumps(value)
    assert holders == {(f"ai_api_clients-{n}", "stdin") for n in (1, 2)} | {("ai_batch_workers-1", "stdin")}
    assert KEY not in json.dumps(dev.outputs)


def test_no_input_depends_on_where_or_by_whom_the_program_runs(dev: Declared) -> None:
    """State can be carried to another checkout, user and machine without a change."""
    inputs = json.dumps(dev.commands)
    for local in (str(PROJECT), os.environ["PATH"], socket.gethostname(), f"/home/{getpass.getuser()}"):
        assert local not in inputs


def test_no_command_can_hang_the_engine_or_pass_on_its_environment(dev: Declared) -> None:
    """Each command logs nothing through the engine, replaces its shell, and cleans its environment."""
    for name, inputs in dev.commands.items():
        assert inputs["logging"] == "none", name
        assert inputs["addPreviousOutputInEnv"] is False, name
        for step in ("create", "update", "delete"):
            line = inputs.get(step)
            assert line in (None, "exit 0") or line.startswith("exec env -i "), name


def test_two_runs_declare_the_same(dev: Declared) -> None:
    """Inputs are functions of settings and state, those that repeat a run too: `up` can be held to a saved plan."""
    assert run(shipped("dev") | {"apiKey": KEY}, name="mocked", preview=False).commands == dev.commands
