"""The pages of `docs/reference` say what the code says."""

import argparse
import json
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from ai_client.cli import arguments
from infra.config import key_source
from infra.config import schema as infra_schema
from infra.config.descriptions import DESCRIPTIONS
from infra.project_files import role_variables
from tests.infra.stacks import PROJECT
from tools.pages import configuration, options, reference, stack_schema

pytestmark = pytest.mark.slow

TOOL = ["tools/reference"]


def page(name: str) -> str:
    return (reference.FOLDER / name).read_text(encoding="utf-8")


def test_every_page_is_as_the_code_is() -> None:
    """After a change of the code, `make reference` writes the pages anew; this fails until then."""
    done = subprocess.run([*TOOL, "--check"], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout


def test_a_page_that_is_out_of_date_is_named(tmp_path: Path) -> None:
    """The check names each stale or missing page and how to mend it, and writes nothing."""
    subprocess.run([*TOOL, "--folder", str(tmp_path)], cwd=PROJECT, check=True)
    (tmp_path / "metrics.md").write_text("old")
    (tmp_path / "events.md").unlink()
    done = subprocess.run(
        [*TOOL, "--check", "--folder", str(tmp_path)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["metrics.md", "events.md"]
    assert "make reference" in done.stdout
    assert (tmp_path / "metrics.md").read_text() == "old"


def test_the_pages_do_not_depend_on_who_writes_them(tmp_path: Path) -> None:
    """Another folder, another environment and another language give the same bytes."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "AI_CLIENT_CONFIG": "/else/where.conf",
        "LC_ALL": "C",
        "COLUMNS": "30",
    }
    subprocess.run(
        [str(PROJECT / "tools/reference"), "--folder", str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        check=True,
    )
    assert {path.name for path in tmp_path.iterdir()} == set(reference.PAGES)
    for path in tmp_path.iterdir():
        assert path.read_text(encoding="utf-8") == page(path.name)


def test_every_configuration_key_is_described() -> None:
    """A key without a meaning is of no use in a reference: describe it in infra/config/descriptions.py."""
    rows = [line for line in configuration.text().splitlines() if line.startswith("| `")]
    assert len(rows) > 50
    assert [row for row in rows if not row.split(" | ")[-1].strip(" |")] == []


def test_no_description_is_of_a_key_that_is_gone() -> None:
    """Each description belongs to a field that there is."""
    for place in DESCRIPTIONS:
        model, field = place.split(".")
        holder = key_source if hasattr(key_source, model) else infra_schema
        assert field in getattr(holder, model).model_fields, place


def test_every_role_variable_and_make_target_has_its_row() -> None:
    """Names are looked up in the pages as a reader would."""
    assert all(f"| `{name}` |" in page("role-variables.md") for name in role_variables())
    phony = next(
        line for line in (PROJECT / "Makefile").read_text().splitlines() if line.startswith(".PHONY")
    ).split()[1:]
    made = [name for name in phony if f"\n{name}:" in (PROJECT / "Makefile").read_text()]
    assert len(made) > 10
    assert all(f"`make {name}`" in page("make.md") for name in made)


def test_every_option_of_every_command_has_its_row() -> None:
    """Whatever the parser takes is in the page, below its command."""

    def options_of(parser: argparse.ArgumentParser) -> list[str]:
        found = []
        for action in parser._actions:
            found += [option for option in action.option_strings if option not in ("-h", "--help")]
            if isinstance(action, argparse._SubParsersAction):
                for inner in action.choices.values():
                    found += options_of(inner)
        return found

    text = options.text()
    listed = options_of(arguments.build())
    assert len(listed) > 15
    assert [option for option in listed if f"`{option}" not in text] == []


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json.loads(page("stack.schema.json"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", sorted(PROJECT.glob("Pulumi.*.yaml")), ids=lambda path: path.name)
def test_the_shipped_stack_files_are_as_the_schema_says(
    path: Path, validator: jsonschema.Draft202012Validator
) -> None:
    """An editor marks nothing in what the project itself ships."""
    validator.validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def stack(**config: object) -> dict[str, object]:
    group = {"hosts": {"a": {"address": "10.0.0.1"}}}
    return {"config": {"fleet:environment": "x", "fleet:groups": {"g": group}} | config}


FINE = [
    stack(),
    stack(**{"fleet:maxRemovals": "3", "fleet:probe": "false", "aws:region": "eu-central-1"}),
    stack(**{"fleet:apiKey": {"secure": "v1:abc"}, "fleet:apiKeys": {"g": {"secure": "v1:abc"}}}),
    stack(**{"fleet:apiKeys": {"secure": "v1:abc"}})
    | {"encryptionsalt": "v1:x", "secretsprovider": "awskms://x"},
    stack(**{"fleet:vars": {"ai_timeout": 2.5, "ansible_become_user": "root", "environment": "x"}}),
    stack(**{"fleet:vars": {"ai_model_fallback_chain": ["a", "b"], "ai_log_level": "INFO"}}),
]
WRONG = [
    {},
    {"config": {}},
    {"config": {"fleet:environment": "x"}},
    stack() | {"confg": {}},
    stack(**{"fleet:apiKey": "hs_test_in_the_clear"}),
    stack(**{"fleet:maxRemoval": 3}),
    stack(**{"fleet:maxRemovals": -1}),
    stack(**{"fleet:maxRemovals": "many"}),
    stack(**{"fleet:probe": "perhaps"}),
    stack(**{"fleet:groups": {"g": {"host": {}}}}),
    stack(**{"fleet:groups": {"g": {"hosts": {"a": {}}}}}),
    stack(**{"fleet:groups": {"g": {"source": "cloud"}}}),
    stack(**{"fleet:groups": {"g": {"port": 70000}}}),
    stack(**{"fleet:vars": {"ai_timout": 30}}),
    stack(**{"fleet:vars": {"ai_timeout": "long"}}),
    stack(**{"fleet:vars": {"ai_log_level": "LOUD"}}),
    stack(**{"fleet:vars": {"ai_api_key": "hs_test_in_the_clear"}}),
    stack(**{"fleet:vars": {"ai_model_fallback_chain": [{}]}}),
]


@pytest.mark.parametrize("content", FINE, ids=range(len(FINE)))
def test_the_schema_takes_what_the_program_takes(
    content: dict[str, object], validator: jsonschema.Draft202012Validator
) -> None:
    """Also what `pulumi config set` writes: texts for numbers, encrypted values, keys of other namespaces."""
    validator.validate(content)


@pytest.mark.parametrize("content", WRONG, ids=range(len(WRONG)))
def test_the_schema_marks_what_the_program_refuses(
    content: dict[str, object], validator: jsonschema.Draft202012Validator
) -> None:
    """Misspelt and missing keys, wrong types and values, and a secret in clear text."""
    assert not validator.is_valid(content)


def test_the_schema_has_no_place_for_what_users_may_not_write() -> None:
    """The stack's name is Pulumi's, and the upstream key is no variable."""
    schema = stack_schema.schema()
    assert "fleet:stack" not in schema["properties"]["config"]["properties"]
    assert not {"ai_api_key", "ai_api_key_next"} & set(schema["$defs"]["Variables"]["properties"])
