"""How a change goes out, as the hosts of a wave are told."""

from infra.config.schema import GateSettings
from infra.hosts import fleet
from infra.hosts.model import Captured
from infra.playbook import requests
from infra.project_files import role_defaults
from tests.infra.stacks import KEY, load, shipped


def variables_of_all(config: dict[str, object], *, tries_keys: bool = True) -> dict[str, object]:
    """What every host of a wave is told."""
    settings = load(shipped("production") | {"apiKey": KEY} | config)
    declared = fleet.build(settings)
    order = requests.deploy(
        settings,
        declared,
        Captured(),
        group="ai_api_clients",
        nodes=declared.targets[:1],
        tries_keys=tries_keys,
    )
    return dict(order.inventory["all"]["vars"])


def test_the_gate_is_the_roles_own_where_nothing_is_set() -> None:
    """With and without this program a change goes out alike."""
    told = variables_of_all({})
    assert len(told) == len(GateSettings.model_fields) + 1
    assert {name: role_defaults()[name] for name in told} == told


def test_the_gate_of_the_stack_gives_way_to_a_nearer_variable() -> None:
    """A stack says it once; `vars` may say otherwise."""
    told = variables_of_all({"gate": {"seconds": 60, "maxErrorShare": 0.5}})
    assert (told["ai_gate_seconds"], told["ai_gate_error_share"]) == (60, 0.5)
    told = variables_of_all({"gate": {"seconds": 60}, "vars": {"ai_gate_seconds": 5}})
    assert told["ai_gate_seconds"] == 5


def test_keys_are_tried_in_the_first_wave_alone() -> None:
    """Later waves lay down what the canary has tried."""
    assert variables_of_all({}, tries_keys=False)["ai_try_keys"] is False
