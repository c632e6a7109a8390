"""What a deploy records for the service, and how the service sees by it that a file was changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from applier.on_host import unchanged_check

from ai_client.platform import seal
from ai_client.platform.seal import Files
from tests.ansible.folder_host import Rig, Wanted


def _look(rig: Rig) -> Files:
    return seal.look(rig.path(unchanged_check.SEALED), root=str(rig.path("/")).rstrip("/"))


def test_the_service_has_the_deploys_own_digest(rig: Rig) -> None:
    """Two programs that share no code: one rule, held by this."""
    rig.ask(Wanted())
    assert _look(rig) is Files.SEALED
    assert str(seal.RECORD) == unchanged_check.SEALED
    assert rig.path(unchanged_check.SEALED).stat().st_mode & 0o777 == 0o640


def _edit(rig: Rig) -> None:
    path = rig.path("/etc/ai-client/ai-client.conf")
    path.write_text(path.read_text() + "# by hand\n")


def _open_up(rig: Rig) -> None:
    rig.path("/etc/ai-client/key").chmod(0o644)


def _drop_in(rig: Rig) -> None:
    folder = rig.path("/etc/systemd/system/ai-client.service.d")
    folder.mkdir(parents=True)
    (folder / "x.conf").write_text("[Service]\nUser=root\n")


def _change_the_release(rig: Rig) -> None:
    release = rig.path("/opt/ai-client/current").resolve()
    next(path for path in sorted(release.rglob("*")) if path.is_file()).write_bytes(b"other")


@pytest.mark.parametrize("change", [_edit, _open_up, _drop_in, _change_the_release])
def test_a_change_is_seen(rig: Rig, change: Callable[[Rig], None]) -> None:
    """And the next deploy, which mends it, is what is sealed then."""
    rig.ask(Wanted())
    change(rig)
    assert _look(rig) is Files.CHANGED
    rig.ask(Wanted())
    if change is not _change_the_release:
        assert _look(rig) is Files.SEALED


def test_without_a_record_nothing_is_known(tmp_path: Path) -> None:
    assert seal.look(tmp_path / "none") is Files.UNKNOWN
    (tmp_path / "broken").write_text("[1]")
    assert seal.look(tmp_path / "broken") is Files.UNKNOWN
