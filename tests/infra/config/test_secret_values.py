"""Secrets at any path of the variables: settings, requests, claims and outputs hold expressions in their place."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra import secret_texts
from infra.config import secret_values
from infra.config.pulumi_config import _stack_file
from infra.config.secret_values import paths_in_file
from infra.errors import SettingsError
from infra.hosts import fleet, house_rules
from infra.hosts.inventory import inventory
from infra.hosts.model import Captured
from infra.playbook import requests
from tests.infra.stacks import KEY, load, shipped

SECRET, OTHER = "s3cr3t-from-config", "http://me:s3cr3t-login@proxy:3128"
PATHS = {
    "fleet:vars": (("ansible_become_password",),),
    "fleet:groups": (("ai_batch_workers", "hosts", "batch-worker-01", "vars", "ai_proxy_url"),),
}


def config() -> dict[str, Any]:
    content = shipped("production") | {"apiKey": KEY, "vars": {"ansible_become_password": SECRET}}
    content["groups"]["ai_batch_workers"]["hosts"]["batch-worker-01"]["vars"] = {"ai_proxy_url": OTHER}
    return content


def loaded(paths: dict[str, Any] = PATHS) -> Any:
    return load(config(), secret=("apiKey", "vars", "groups"), secret_paths=paths)


def test_the_settings_hold_an_expression_and_the_house_rules_see_the_secret() -> None:
    """A password and a proxy's login are no clear text then, and TLS rules judge what hosts really get."""
    settings = loaded()
    assert SECRET not in settings.model_dump_json() + repr(settings)
    assert sorted(settings.secrets.values()) == [OTHER, SECRET]
    house_rules.check(settings, fleet.build(settings))


def test_what_is_not_encrypted_in_the_file_stays_readable() -> None:
    """Pulumi marks the whole key; the file says where in it the secret is."""
    settings = loaded()
    assert settings.groups["ai_api_clients"].vars["ai_base_url"] == "https://api.holysheep.ai/v1"
    written = {
        "fleet:vars": {"a": {"secure": "v1:x"}, "b": [1, {"secure": "v1:y"}]},
        "fleet:apiKey": {"secure": "z"},
    }
    assert secret_values.paths_in_file(written, "fleet:vars") == (("a",), ("b", 1))
    assert secret_values.paths_in_file(written, "fleet:apiKey") == ((),)
    assert secret_values.paths_in_file(written, "fleet:groups") == ()


def test_where_the_file_does_not_say_every_text_of_a_variable_is_a_secret() -> None:
    """Of an environment of Pulumi ESC, say: rather too much is hidden than too little."""
    settings = loaded({})
    assert {SECRET, OTHER, "https://api.holysheep.ai/v1", "gpt-4.1"} <= set(settings.secrets.values())
    assert settings.groups["ai_api_clients"].hosts["web-prod-01"].address == "10.0.1.11"


def test_a_deploy_gets_the_secrets_of_its_hosts_in_its_environment() -> None:
    """The inventory holds expressions; the texts go beside the key, and no host gets another one's."""
    settings = loaded()
    built = fleet.build(settings)
    nodes = {node.name: node for node in built.targets}
    texts = {}
    for name in ("batch-worker-01", "batch-worker-02"):
        request = requests.deploy(settings, built, Captured(), group="ai_batch_workers", nodes=[nodes[name]])
        assert "s3cr3t" not in json.dumps(request.inventory)
        texts[name] = {
            text for variable, text in request.secrets.items() if variable.startswith("FLEET_SECRET_")
        }
    assert texts == {"batch-worker-01": {SECRET, OTHER}, "batch-worker-02": {SECRET}}


def test_a_claim_gets_what_it_needs_to_become_root_and_no_more() -> None:
    """A password of sudo is needed to clean up, a proxy's login is not."""
    settings = loaded()
    built = fleet.build(settings)
    node = next(node for node in built.targets if node.name == "batch-worker-01")
    request = requests.decommission(settings, built, Captured(), node=node)
    assert list(request.secrets.values()) == [SECRET]
    assert "s3cr3t" not in json.dumps(inventory(built, settings.vars))


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("groups", ("ai_batch_workers", "hosts", "batch-worker-01", "address")),
        ("groups", ("ai_batch_workers", "user")),
    ],
)
def test_a_secret_outside_of_variables_is_refused(key: str, path: tuple[str, ...]) -> None:
    """Addresses and logins are in outputs and in the ssh configuration: they can't be kept."""
    with pytest.raises(SettingsError, match="stored as a secret, but a stack's outputs") as raised:
        load(config(), secret=("apiKey", "groups"), secret_paths={f"fleet:{key}": (path,)})
    assert raised.value.culprit == f"fleet:{key}.{'.'.join(path)}"


def test_a_key_that_cannot_be_secret_is_refused_rather_than_shown() -> None:
    """Whoever set it so believes that it is hidden."""
    with pytest.raises(SettingsError, match="fleet:user: is stored as a secret"):
        load(config() | {"user": "deploy"}, secret=("apiKey", "user"))


def test_a_secret_number_is_refused_with_the_way_out() -> None:
    """Ansible finds texts alone in its environment."""
    content = config()
    content["vars"]["ai_rpm"] = "60"
    with pytest.raises(SettingsError, match=r"fleet:vars\.ai_rpm: is secret, but only a text can be secret"):
        load(content, secret=("apiKey", "vars"), secret_paths={"fleet:vars": (("ai_rpm",),)})


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in a structure but the top."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inner:
        yield (*path, name)
        yield from places(each, (*path, name))


def with_value(content: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """A structure with another value at a place."""
    changed = json.loads(json.dumps(content))
    place = changed
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return changed


@pytest.mark.parametrize("stack", ["production", "dev"])
@pytest.mark.parametrize("value", [SECRET, {"x": SECRET}, [SECRET]], ids=["text", "dict", "list"])
def test_no_error_says_a_secret_wherever_it_was_put(stack: str, value: Any) -> None:
    """A provider that prints its malformed input prints the key in it; here, whatever is wrong with a value.

    https://github.com/pulumi/pulumi-command/issues/773
    """
    content = shipped(stack) | {"apiKey": KEY}
    content["vars"] = {"ai_fallback_model": "gpt-4.1", "ai_base_url": "x", "ai_cost_tags": {"a": "b"}}
    told: dict[tuple[str | int, ...], str] = {}
    for path in places(content):
        paths = {f"fleet:{path[0]}": (path[1:],)}
        try:
            settings = load(
                with_value(content, path, value),
                stack=stack,
                secret=("apiKey", str(path[0])),
                secret_paths=paths,
            )
            house_rules.check(settings, fleet.build(settings))
        except SettingsError as error:
            told[path] = str(error)
    assert len(told) > len(content)
    assert [path for path, text in told.items() if SECRET in text] == []


def test_texts_are_masked_where_people_read_them() -> None:
    """Whole, and line by line; short ones would mask words."""
    assert secret_texts.mask_values("a s3cr3t b", ["s3cr3t"]) == "a [masked] b"
    assert secret_texts.mask_values("x second-line", ["first-line\nsecond-line"]) == "x [masked]"
    assert secret_texts.mask_values("an on", ["on"]) == "an on"


def test_a_fingerprint_changes_with_a_text_and_shows_nothing_of_it() -> None:
    """So that a preview shows that a secret changes."""
    one, other = (secret_texts.fingerprint(frozenset({("FLEET_SECRET_X", text)})) for text in ("a", "b"))
    assert one != other
    assert len(one) == 16


@pytest.mark.parametrize("environment", ["", "environment: [fleet/production]\n"])
def test_secrets_of_an_environment_are_in_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: str
) -> None:
    """With Pulumi ESC, a key may hold secrets beside those of the stack's file: every text of it counts as one."""
    config = "config:\n  fleet:vars: {a: {secure: v1:x}, b: c}\n"
    (tmp_path / "Pulumi.live.yaml").write_text(environment + config)
    monkeypatch.chdir(tmp_path)
    found = paths_in_file(_stack_file("live"), "fleet:vars")
    assert found == (() if environment else (("a",),))
