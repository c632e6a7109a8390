"""Tasks of a group's own, before and after each of its waves."""

from pathlib import Path
from typing import Any

import pytest

from infra.config.schema import FleetSettings
from infra.errors import SettingsError
from infra.hosts.fleet import build
from infra.hosts.model import Captured
from infra.plan.blockers import blockers
from infra.playbook import requests, runner
from infra.playbook.request import RunRequest
from tests.infra.stacks import KEY, load, shipped


def configured(**layout: str) -> FleetSettings:
    config: dict[str, Any] = shipped("production") | {"apiKey": KEY}
    config["groups"]["ai_api_clients"] |= layout
    return load(config)


def request(settings: FleetSettings, *, check: bool = False) -> RunRequest:
    fleet = build(settings)
    group = next(group for group in fleet.groups if group.name == "ai_api_clients")
    return requests.deploy(settings, fleet, Captured(), group=group.name, nodes=group.nodes, check=check)


def variables(made: RunRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What Ansible is told apart from the inventory."""
    monkeypatch.setattr(runner, "_artefacts", lambda order: "artefacts")
    runner._write_inputs(made, tmp_path, run="run-1")
    return (tmp_path / "variables.json").read_text()


def test_a_deploy_is_told_where_they_are_and_a_look_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state has the path below the project folder; a preview drains no load balancer."""
    settings = configured(before="tasks/drain.yml", after="tasks/fill.yml")
    made = request(settings)
    assert (made.before, made.after) == ("tasks/drain.yml", "tasks/fill.yml")
    told = variables(made, tmp_path, monkeypatch)
    assert str(Path("tasks/drain.yml").resolve()) in told
    assert str(Path("tasks/fill.yml").resolve()) in told
    assert "tasks/" not in variables(request(settings, check=True), tmp_path, monkeypatch)
    assert "before" not in variables(request(configured()), tmp_path, monkeypatch)


def test_a_file_that_is_missing_blocks_up() -> None:
    """The preview names it."""
    settings = configured(before="tasks/drain.yml")
    said = [str(blocker) for blocker in blockers(settings, build(settings))]
    assert any("groups.ai_api_clients.before: tasks/drain.yml" in text for text in said)


@pytest.mark.parametrize("path", ["/etc/x.yml", "../x.yml", "a/../../x.yml", "~/x.yml", "drain", "x.sh", ""])
def test_a_path_outside_of_the_project_is_refused(path: str) -> None:
    """It would be of one machine alone."""
    with pytest.raises(SettingsError, match=r"before"):
        configured(before=path)


def test_a_name_with_blanks_is_a_name() -> None:
    """As file systems have them."""
    assert request(configured(after="my tasks/fill the pool.yml")).after == "my tasks/fill the pool.yml"
