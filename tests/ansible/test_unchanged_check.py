"""The record of a host that is right in every byte: what breaks it, and when there is none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from applier.on_host import unchanged_check

from tests.ansible.folder_host import KEY_2, Rig, Wanted, artefact


def holds(rig: Rig, wanted: Wanted) -> bool:
    """Whether the unchanged check would say that nothing changed."""
    file = rig.path(unchanged_check.RECORD)
    if not file.exists():
        return False
    request, seen, release, _, _, _, *paths = file.read_text().split("\n")
    now = unchanged_check.seen_digest(str(rig.root), paths=paths, release=release, ids=tuple(rig.host.ids()))
    return request == unchanged_check.request_digest(wanted.encode()) and seen == now


def edit(path: str) -> Callable[[Rig], object]:
    """A byte is changed and both times that can be set are set back."""

    def change(rig: Rig) -> None:
        file = rig.path(path).resolve()
        seen = file.stat()
        content = file.read_bytes()
        file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        os.utime(file, ns=(seen.st_atime_ns, seen.st_mtime_ns))

    return change


DRIFTS: dict[str, Callable[[Rig], object]] = {
    "config edited, times set back": edit("/etc/ai-client/ai-client.conf"),
    "key edited": edit("/etc/ai-client/key"),
    "launcher edited": edit("/opt/ai-client/bin/ai-client"),
    "package edited": edit("/opt/ai-client/current/lib/mod.py"),
    "claim edited": edit("/etc/ai-client/claim.json"),
    "unit edited": edit("/etc/systemd/system/ai-client.service"),
    "mode": lambda rig: rig.path("/etc/ai-client/key").chmod(0o644),
    "owner of a folder": lambda rig: os.chown(rig.path("/var/log/ai-client"), 0, 0),
    "mode of a folder": lambda rig: rig.path("/etc/ai-client").chmod(0o755),
    "file removed": lambda rig: rig.path("/etc/ai-client/ai-client.conf").unlink(),
    "disabled": lambda rig: rig.path(
        "/etc/systemd/system/multi-user.target.wants/ai-client.service"
    ).unlink(),
    "another key laid down": lambda rig: rig.path("/etc/ai-client/key.next").write_text("x"),
    "file added to the package": lambda rig: rig.path("/opt/ai-client/current/lib/evil.py").write_text("x"),
    "file removed from the package": lambda rig: rig.path("/opt/ai-client/current/main.py").unlink(),
    "link switched": lambda rig: (
        rig.path("/opt/ai-client/current").unlink(),
        rig.path("/opt/ai-client/current").symlink_to("releases/other"),
    ),
    "left by a killed run": lambda rig: rig.path("/etc/systemd/system/.ai-client-apply.x").write_text("x"),
    "killed run": lambda rig: rig.path("/etc/ai-client/pending.json").write_text("{}"),
    "user removed": lambda rig: rig.host.remove_identity(rig.host.ids()),
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_every_drift_breaks_the_seal(rig: Rig, drift: str) -> None:
    """No change of what is ours passes the unchanged check; the whole look then names it."""
    rig.ask(Wanted())
    assert holds(rig, Wanted())
    DRIFTS[drift](rig)
    assert not holds(rig, Wanted())
    answer = rig.ask(Wanted(check=True))
    # Of a claim that can't be read no plan is made at all.
    assert answer.changed or "claim.json" in answer.message


def test_another_request_is_looked_at_in_full(rig: Rig) -> None:
    """Config, key, release, claim: each is part of what was sealed; the run's name and a look are not."""
    rig.ask(Wanted())
    assert holds(rig, Wanted(run="run-7", check=True))
    for other in (
        Wanted(config="[api]\n"),
        Wanted(key=KEY_2),
        Wanted(packed=artefact(v="2")),
        Wanted(claim="fleet/test/other"),
        Wanted(owner="fleet/other"),
        Wanted(parts=("config",)),
        Wanted(mode="decommission"),
    ):
        assert not holds(rig, other)


def test_what_others_do_beside_us_breaks_no_seal(rig: Rig) -> None:
    """Another package's unit or certificate, and what the service writes into its own folders."""
    rig.ask(Wanted())
    rig.path("/etc/systemd/system/other.service").write_text("x")
    rig.path("/usr/local/share/ca-certificates/other.crt").write_text("x")
    rig.path("/var/log/ai-client/today.log").write_text("x")
    assert holds(rig, Wanted())


def test_an_unhealthy_or_partial_run_seals_nothing(rig: Rig) -> None:
    """Only a whole run that found everything well."""
    rig.ask(Wanted(parts=("deploy", "config", "secrets")))
    assert not rig.path(unchanged_check.RECORD).exists()
    rig.host.fail(key="unreadable")
    rig.ask(Wanted())
    assert not rig.path(unchanged_check.RECORD).exists()


def test_an_edit_while_the_host_is_being_sealed_is_not_sealed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right after the look at the times somebody writes: the bytes are compared after that look, and show it."""
    seen_digest = unchanged_check.seen_digest
    config = rig.path("/etc/ai-client/ai-client.conf")

    def look_and_edit(root: str, **what: object) -> str:
        seen = seen_digest(root, **what)  # type: ignore[arg-type]
        config.write_text("[api]\ntimeout = 1\n")
        return seen

    with monkeypatch.context() as patch:
        patch.setattr(unchanged_check, "seen_digest", look_and_edit)
        assert not rig.ask(Wanted()).failed
    assert not rig.path(unchanged_check.RECORD).exists()
    assert rig.ask(Wanted(check=True)).changed


def test_the_seal_holds_no_key(rig: Rig) -> None:
    """Digests, paths and what may be shown; readable by root alone."""
    rig.ask(Wanted())
    record: Path = rig.path(unchanged_check.RECORD)
    assert "hs_test_" not in record.read_text()
    assert record.stat().st_mode & 0o777 == 0o600
