"""Hosts of a group in a file of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infra.errors import SettingsError
from tests.infra.stacks import HOST_KEY, KEY, load

FILE = "hosts/web.yml"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a project, where the program runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hosts").mkdir()
    return tmp_path


def _config(**group: Any) -> dict[str, Any]:
    return {"environment": "dev", "apiKey": KEY, "groups": {"web": {"hostsFile": FILE, **group}}}


def _write(project: Path, text: str) -> None:
    (project / FILE).write_text(text)


def test_hosts_of_a_file_are_those_of_the_group(project: Path) -> None:
    """Beside those that the stack's file has itself."""
    _write(project, f"web-2: {{address: 10.0.0.2, hostKeys: ['{HOST_KEY}']}}\n")
    settings = load(_config(hosts={"web-1": {"address": "10.0.0.1"}}))
    hosts = settings.groups["web"].hosts
    assert {name: host.address for name, host in hosts.items()} == {"web-1": "10.0.0.1", "web-2": "10.0.0.2"}
    assert hosts["web-2"].host_keys == (HOST_KEY,)


def test_a_fleet_too_large_for_the_configuration_fits_into_a_file(project: Path) -> None:
    hosts = {
        f"web-{n}": {"address": f"10.1.{n // 250}.{n % 250 + 1}", "hostKeys": [HOST_KEY]} for n in range(2000)
    }
    _write(project, json.dumps(hosts))
    config = _config()
    assert len(json.dumps(hosts)) > 128 * 1024 > len(json.dumps(config))
    assert len(load(config).groups["web"].hosts) == 2000


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- web-2\n", "hosts/web.yml holds no hosts by name; write hosts by name"),
        ("web-2: {address\n", "hosts/web.yml is no YAML"),
        ("web-2: {address: 10.0.0.2}\nweb-2: {address: 10.0.0.3}\n", "web-2 is there twice"),
        ("web-1: {address: 10.0.0.2}\n", "web-1 is in hosts/web.yml and in 'hosts'; remove one of the two"),
        ("web-2: {adress: 10.0.0.2}\n", "did you mean 'address'?"),
        ("web-2: {address: 10.0.0.1}\n", "10.0.0.1:22 is declared twice"),
        (None, "hosts/web.yml can't be read (No such file or directory); name a file"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(project: Path, text: str | None, told: str) -> None:
    if text is not None:
        _write(project, text)
    with pytest.raises(SettingsError) as caught:
        load(_config(hosts={"web-1": {"address": "10.0.0.1"}}))
    assert "fleet:groups.web" in str(caught.value)
    assert told in str(caught.value)


@pytest.mark.parametrize("path", ["/etc/hosts.yml", "../hosts.yml", "~/hosts.yml"])
def test_a_file_outside_of_the_project_is_refused(path: str) -> None:
    """Another machine has none there."""
    with pytest.raises(SettingsError, match="a YAML file below the project folder is needed"):
        load(_config() | {"groups": {"web": {"hostsFile": path}}})
