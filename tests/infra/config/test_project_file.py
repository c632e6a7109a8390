"""`Pulumi.yaml` declares keys to the engine as the program reads them."""

from typing import Any, get_origin

import pytest
import yaml
from pydantic.alias_generators import to_camel

from infra.config.schema import FleetSettings
from tests.infra.stacks import PROJECT

FIELDS = {to_camel(name): field for name, field in FleetSettings.model_fields.items() if name != "stack"}
DECLARED: dict[str, Any] = yaml.safe_load((PROJECT / "Pulumi.yaml").read_text())["config"]


@pytest.mark.parametrize("name", DECLARED)
def test_a_declared_key_is_one_of_the_programs_with_its_default(name: str) -> None:
    """The engine hands defaults to the program: another one would change every stack."""
    field, declared = FIELDS[name], DECLARED[name]
    assert ("default" in declared) is not field.is_required()
    if "default" in declared:
        usual = field.get_default(call_default_factory=True)
        assert declared["default"] == (list(usual) if isinstance(usual, tuple) else usual)


@pytest.mark.parametrize("name", DECLARED)
def test_the_engine_takes_every_type_of_value_that_the_program_takes(name: str) -> None:
    """It refuses others before the program starts."""
    taken = FIELDS[name].annotation
    types = {"boolean": bool, "integer": int, "string": str, "array": tuple}
    expected = types.get(DECLARED[name]["type"])
    if expected is None:
        assert DECLARED[name]["type"] == "object"
        assert taken not in types.values()
    else:
        assert (get_origin(taken) or taken) is expected


def test_required_keys_are_left_to_the_program() -> None:
    """The engine says that one is missing and ends there; the program names the misspelt one beside it, too."""
    required = {name for name, field in FIELDS.items() if field.is_required()}
    assert required
    assert not required & set(DECLARED)
