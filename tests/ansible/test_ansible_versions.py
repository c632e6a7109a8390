"""Each supported ansible-core, in a venv of its own: results, what the callback writes, and no secret anywhere."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ansible.elsewhere import ROOT, Elsewhere, install, pack
from tests.ansible.folder_host import KEY, KEY_2

pytestmark = pytest.mark.slow

VERSIONS = ("ansible219", "ansible220", "ansible221", "ansible222")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection, built by the version that this checkout has."""
    return pack(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module", params=VERSIONS)
def elsewhere(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, packed: Path
) -> Elsewhere:
    """The collection under one version of Ansible, with a host on which it is deployed."""
    made = subprocess.run(
        [ROOT / "tools" / "venv", request.param], capture_output=True, text=True, timeout=300, check=False
    )
    assert made.returncode == 0, made.stderr
    folder = tmp_path_factory.mktemp(request.param)
    there = install(folder, packed, programs=Path(made.stdout.strip()) / "bin")
    first = there.play("ai_client.fleet.deploy")
    assert (first["changed"], first["failed"]) == (True, False)
    return there


def test_a_second_run_looks_and_says_what_differs(elsewhere: Elsewhere) -> None:
    """The callback's line holds what a preview is made of: the path, and the difference."""
    assert (elsewhere.host / "etc/ai-client/key").read_text().strip() == KEY
    looked = elsewhere.play("ai_client.fleet.deploy", "-e", "ai_rpm=77", "--check", "--diff")
    assert (looked["changed"], looked["changed_paths"]) == (True, ["/etc/ai-client/ai-client.conf"])
    assert "+rate_limit = 77" in looked["diffs"][0]["diff"]


def test_no_key_is_shown_however_much_is_asked_for(
    elsewhere: Elsewhere, request: pytest.FixtureRequest
) -> None:
    """Registered, printed, at the highest verbosity, and where the task fails: neither key is in any output."""
    failing = {
        "ai_client.fleet.ai_client_apply": {"parts": ["deploy", "config", "secrets"]},
        "register": "told",
        "vars": {"ai_claim": "another/one"},
        "ignore_errors": True,
    }
    tasks = [
        {"ansible.builtin.import_role": {"name": "ai_client.fleet.ai_client"}},
        failing,
        {"ansible.builtin.debug": {"var": "told"}},
    ]
    play = {"hosts": "all", "gather_facts": False, "become": True, "tasks": tasks}
    (elsewhere.folder / "shown.yml").write_text(yaml.safe_dump([play]))
    (elsewhere.folder / "keys.yml").write_text(yaml.safe_dump({"ai_api_key_next": KEY_2}))
    ran = elsewhere.run(
        "ansible-playbook", "-i", "hosts.yml", "shown.yml", "-vvvv", "--diff", "-e", "@keys.yml"
    )
    said = ran.stdout + ran.stderr + (elsewhere.folder / "results.jsonl").read_text()
    assert f"core 2.{request.node.callspec.params['elsewhere'][-2:]}." in said
    assert "told" in said
    assert KEY_2 in "".join(path.read_text() for path in (elsewhere.host / "etc/ai-client").glob("key*"))
    assert (KEY in said, KEY_2 in said) == (False, False)


def test_a_host_that_fails_and_one_that_is_away_are_told_apart(elsewhere: Elsewhere) -> None:
    """The callback's lines have the reason of the one, and that the other was not reached."""
    inventory = yaml.safe_load((elsewhere.folder / "hosts.yml").read_text())
    hosts = inventory["all"]["hosts"]
    away = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    hosts |= {"away": {**away, "ai_artefacts": hosts["one"]["ai_artefacts"]}}
    hosts["one"] = {**hosts["one"], "ai_artefacts": "/none"}
    (elsewhere.folder / "two.yml").write_text(yaml.safe_dump(inventory))
    (elsewhere.folder / "results.jsonl").unlink()
    ran = elsewhere.run("ansible-playbook", "-i", "two.yml", "ai_client.fleet.deploy")
    assert ran.returncode != 0
    text = (elsewhere.folder / "results.jsonl").read_text()
    told: dict[str, dict[str, Any]] = {entry["host"]: entry for entry in map(json.loads, text.splitlines())}
    assert (told["one"]["failed"], told["one"]["unreachable"]) == (True, False)
    assert "/none/index.json: No such file or directory" in told["one"]["message"]
    assert (told["away"]["failed"], told["away"]["unreachable"]) == (False, True)
