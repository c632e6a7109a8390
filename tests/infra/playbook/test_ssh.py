import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.config.schema import SshSettings
from infra.errors import PlaybookError
from infra.hosts.model import Captured, Node
from infra.playbook import ssh
from tests.infra.stacks import HOST_KEY

JUMP = Node(name="jump", address="198.18.0.2")
WEB = Node(name="web", address="10.0.0.1", jump=("jump",))
OTHER_KEY = HOST_KEY.replace("AAAAC3", "AAAAD4")


def resolved(folder: Path, nodes: tuple[Node, ...], keys: dict[str, str], host: str) -> dict[str, str]:
    """What ssh itself makes of the configuration for a host."""
    captured = Captured(host_keys={name: (key,) for name, key in keys.items()})
    known_hosts = ssh.known_hosts_text(nodes, captured)
    config = ssh.config_text(nodes, SshSettings(), known_hosts=str(folder / "known_hosts"))
    path = folder / "ssh_config"
    path.write_text(ssh.with_kept_connections(config, known_hosts, "/run/kept"))
    asked = subprocess.run(["ssh", "-F", str(path), "-G", host], capture_output=True, text=True, check=True)
    return dict(line.split(" ", 1) for line in asked.stdout.splitlines() if " " in line)


def test_a_connection_is_kept_under_all_that_leads_to_its_host(tmp_path: Path) -> None:
    """Another host key, address or jump host is another connection; the same host has the same in every run."""
    keys = {"jump": HOST_KEY, "web": HOST_KEY}
    moved_jump = Node(name="jump", address="198.18.0.6")
    paths = [
        resolved(tmp_path, nodes, known, "10.0.0.1")["controlpath"]
        for nodes, known in (
            ((JUMP, WEB), keys),
            ((JUMP, WEB), {**keys, "web": OTHER_KEY}),
            ((JUMP, WEB), {**keys, "jump": OTHER_KEY}),
            ((moved_jump, WEB), keys),
        )
    ]
    assert len(set(paths)) == len(paths)
    alone_or_not = (JUMP, WEB, Node(name="db", address="10.0.0.2", jump=("jump",)))
    assert resolved(tmp_path, alone_or_not, keys, "web")["controlpath"] == paths[0]


def test_a_host_is_reached_with_pinned_keys_alone_through_its_jump_host(tmp_path: Path) -> None:
    """Never trust on first use, never ask."""
    found = resolved(tmp_path, (JUMP, WEB), {"jump": HOST_KEY, "web": HOST_KEY}, "10.0.0.1")
    assert found["proxyjump"] == "jump"
    assert found["stricthostkeychecking"] == "true"
    assert found["hostkeyalias"] == "web"
    assert found["batchmode"] == "yes"
    assert found["controlmaster"] == "auto"


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache with a short path, which pytest's own folders don't have."""
    with tempfile.TemporaryDirectory(prefix="acf-", dir="/tmp") as folder:
        monkeypatch.setenv("XDG_CACHE_HOME", folder)
        yield Path(folder)


def test_connections_are_kept_in_the_cache_or_where_its_path_is_short_enough(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home folder with a long path must not make every connection fail."""
    assert ssh.connections_folder() == cache / "ai-client-fleet" / "cp"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / ("long" * 20)))
    short = ssh.connections_folder()
    assert short == Path(f"/tmp/ai-client-fleet-{os.geteuid()}")
    assert short.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_can_reach_keeps_no_connections(cache: Path, tmp_path: Path) -> None:
    """Who can open such a socket is on the host."""
    folder = ssh.connections_folder()
    folder.chmod(0o755)
    with pytest.raises(PlaybookError, match=r"not a folder that only you can use.*0700.*XDG_CACHE_HOME"):
        ssh.connections_folder()
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(PlaybookError, match="not a folder that only you can use"):
        ssh.connections_folder()
