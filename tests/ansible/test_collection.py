"""The Ansible collection as a stranger uses it: built, installed elsewhere, and run from there."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
import yaml

from tests.ansible.elsewhere import ROOT, Elsewhere, install, pack
from tests.ansible.folder_host import KEY


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection as `make collection` builds it."""
    return pack(tmp_path_factory.mktemp("built"))


@pytest.fixture
def elsewhere(tmp_path: Path, packed: Path) -> Elsewhere:
    """The collection installed, an inventory, and a client to install."""
    return install(tmp_path, packed)


def test_an_installed_collection_deploys_checks_and_removes(elsewhere: Elsewhere) -> None:
    """By its role's full name and by its playbooks' names, with none of this checkout's settings."""
    role = [{"hosts": "all", "gather_facts": False, "become": True, "roles": ["ai_client.fleet.ai_client"]}]
    (elsewhere.folder / "mine.yml").write_text(yaml.safe_dump(role))
    first = elsewhere.play("mine.yml")
    assert (first["changed"], first["failed"]) == (True, False)
    assert (elsewhere.host / "etc/ai-client/key").read_text().strip() == KEY
    assert not elsewhere.play("mine.yml")["changed"]
    assert elsewhere.play("ai_client.fleet.verify")["health"]["ok"]
    assert elsewhere.play("ai_client.fleet.deploy", "-e", "ai_rpm=77", "--check")["changed_paths"] == [
        "/etc/ai-client/ai-client.conf"
    ]
    assert elsewhere.play("ai_client.fleet.decommission")["changed"]
    assert not (elsewhere.host / "etc/ai-client").exists()


def test_a_run_by_hand_takes_vault_values_and_a_stacks_claim(elsewhere: Elsewhere) -> None:
    """As `docs/how-to/day-two.md` has it: the key from an encrypted file, the claim as the stack's own runs name it."""
    folder, key = elsewhere.folder, "hs_test_canary_by_vault"
    (folder / "password").write_text("only-here\n")
    (folder / "vault.yml").write_text(f"ai_api_key: {key}\n")
    vault = ("--vault-password-file", "password")
    assert elsewhere.run("ansible-vault", "encrypt", *vault, "vault.yml").returncode == 0
    owner = "fleet/production@0123456789ab"
    words = ("ai_client.fleet.deploy", "--limit", "one", "-e", "@vault.yml", *vault)
    claim = ("-e", f"ai_claim_owner={owner}", "-e", "ai_claim={{ ai_claim_owner }}/{{ inventory_hostname }}")
    assert elsewhere.play(*words, *claim, "--check")["changed"]
    assert not (elsewhere.host / "etc/ai-client").exists()
    assert elsewhere.play(*words, *claim)["claim"] == f"{owner}/one"
    assert (elsewhere.host / "etc/ai-client/key").read_text().strip() == key
    refused = elsewhere.run("ansible-playbook", "-i", "hosts.yml", *words)
    assert refused.returncode != 0
    assert f"this host belongs to {owner}" in refused.stdout


def test_an_installed_collection_documents_itself(elsewhere: Elsewhere) -> None:
    """`ansible-doc` finds the module, and the role's variables."""
    for words, text in (
        (("ai_client.fleet.ai_client_apply",), "key_fingerprint"),
        (("-t", "role"), "ai_rpm"),
    ):
        name = () if len(words) == 1 else ("ai_client.fleet.ai_client",)
        shown = elsewhere.run("ansible-doc", *words, *name)
        assert shown.returncode == 0, shown.stderr
        assert text in shown.stdout


def test_the_package_holds_the_collection_alone(packed: Path) -> None:
    """No inventory of ours, no settings of this checkout, nothing that was built here; its version is the project's."""
    with tarfile.open(packed) as tar:
        names = tar.getnames()
        manifest = json.load(tar.extractfile("MANIFEST.json"))  # type: ignore[arg-type]
    tops = {name.partition("/")[0] for name in names}
    assert tops == {
        "MANIFEST.json",
        "FILES.json",
        "CHANGELOG.md",
        "README.md",
        "meta",
        "applier",
        "playbooks",
        "plugins",
        "roles",
    }
    assert not [name for name in names if "cache" in name or name.endswith(".pyc")]
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{manifest["collection_info"]["version"]}"' in project


def tasks(folder: Path, name: str, *lines: str) -> Path:
    """A file of raw tasks, each a shell line."""
    path = folder / name
    content = [{"name": f"{name} {n}", "ansible.builtin.raw": line} for n, line in enumerate(lines)]
    path.write_text(yaml.safe_dump(content))
    return path


def test_tasks_of_ones_own_run_before_and_after(elsewhere: Elsewhere) -> None:
    """A load balancer is drained before the host changes, and filled again once it is deployed and well."""
    conf, log = elsewhere.host / "etc/ai-client/ai-client.conf", elsewhere.folder / "log"
    before = tasks(elsewhere.folder, "drain.yml", f"test ! -e {conf} && echo drained >> {log}")
    after = tasks(elsewhere.folder, "fill.yml", f"test -e {conf} && echo filled >> {log}")
    words = ("ai_client.fleet.deploy", "-e", f"ai_before_tasks={before}", "-e", f"ai_after_tasks={after}")
    assert elsewhere.play(*words)["changed"]
    assert log.read_text() == "drained\nfilled\n"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_task_of_ones_own_that_fails_is_the_hosts_result(elsewhere: Elsewhere, when: str) -> None:
    """By its name; before the deploy nothing is touched, after it what was deployed is told."""
    failing = tasks(elsewhere.folder, "failing.yml", "echo no such pool >&2; exit 3")
    played = elsewhere.run(
        "ansible-playbook", "-i", "hosts.yml", "ai_client.fleet.deploy", "-e", f"ai_{when}_tasks={failing}"
    )
    assert played.returncode != 0
    result = json.loads((elsewhere.folder / "results.jsonl").read_text().splitlines()[-1])
    assert (result["failed"], result["own_task"]) == (True, True)
    assert "failing.yml 0" in result["message"]
    assert result["changed"] == (when == "after")
    assert (elsewhere.host / "etc/ai-client/key").exists() == (when == "after")


def test_a_task_that_is_rescued_is_no_fault(elsewhere: Elsewhere) -> None:
    """The host is well: its result says so."""
    rescued = elsewhere.folder / "rescued.yml"
    fails, mends = ({"name": name, "ansible.builtin.raw": name} for name in ("false", "true"))
    rescued.write_text(yaml.safe_dump([{"name": "Try", "block": [fails], "rescue": [mends]}]))
    assert not elsewhere.play("ai_client.fleet.deploy", "-e", f"ai_before_tasks={rescued}")["failed"]
