"""Drop-ins of the service's unit: shown; those that weaken its sandbox are drift, which a run sets aside."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from applier.on_controller.rendering import render_units
from applier.on_host.sandbox import drop_ins
from applier.on_host.tree import Tree

from tests.ansible.folder_host import Rig, Wanted
from tests.ansible.test_role import TEMPLATES, defaults
from tests.ansible.test_unchanged_check import holds

FOLDER = "/etc/systemd/system/ai-client.service.d"
UNITS = render_units(TEMPLATES, defaults())

WEAKENING = [
    "User=root",
    "Group=root",
    "ProtectSystem=no",
    "ProtectSystem=full",
    "ProtectHome=read-only",
    "NoNewPrivileges=false",
    "PrivateTmp=0",
    "CapabilityBoundingSet=CAP_SYS_ADMIN",
    "AmbientCapabilities=CAP_NET_ADMIN",
    "SystemCallFilter=",
    "SystemCallFilter=@privileged",
    "RestrictAddressFamilies=AF_PACKET",
    "ReadWritePaths=/",
    "ReadWritePaths=-/etc",
    "BindPaths=/root",
    "SupplementaryGroups=sudo",
    "UMask=0000",
    "LimitCORE=infinity",
    "ExecStart=/srv/other",
    "ExecStartPre=+/bin/sh -c id",
    "ExecStartPost=!/usr/bin/notify",
    "Environment=LD_PRELOAD=/tmp/x.so",
    "MemoryDenyWriteExecute = no",
    "ProtectSystem=\\\n no",
    "DeviceAllow=/dev/sda rw",
]
HARMLESS = [
    "LimitNOFILE=1000000",
    "MemoryMax=2G",
    "CPUQuota=50%",
    "Environment=HTTPS_PROXY=http://proxy:3128",
    "IPAddressDeny=any",
    "PrivateNetwork=yes",
    "NoNewPrivileges=true",
    "ProtectSystem=strict",
    "CapabilityBoundingSet=~CAP_SYS_ADMIN",
    "SystemCallFilter=~@clock",
    "UMask=0077",
    "ExecStartPost=/usr/bin/notify",
    "# User=root",
    "ReadWritePaths=",
    "[Unit]\nUser=root",
    "DeviceAllow=",
]


def judged(folder: Path, line: str) -> bool:
    """Whether a drop-in with this line weakens the unit as the role renders it."""
    path = folder / FOLDER[1:]
    path.mkdir(parents=True)
    (path / "own.conf").write_text(f"[Service]\n{line}\n")
    (found,) = drop_ins(Tree(str(folder)), UNITS)
    return bool(found.weakens)


@pytest.mark.parametrize("line", WEAKENING)
def test_a_line_that_takes_from_the_sandbox_weakens(tmp_path: Path, line: str) -> None:
    """Another user, an open file system, a capability, a program outside of it."""
    assert judged(tmp_path, line)


@pytest.mark.parametrize("line", HARMLESS)
def test_a_line_that_only_limits_or_hardens_does_not(tmp_path: Path, line: str) -> None:
    """Those are the team's own business."""
    assert not judged(tmp_path, line)


def put(rig: Rig, line: str, *, folder: str = FOLDER) -> Path:
    """A drop-in as somebody makes it, taken up by systemd."""
    path = rig.path(f"{folder}/own.conf")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"[Service]\n{line}\n")
    rig.host.systemctl("daemon-reload")
    return path


@pytest.mark.parametrize(
    "folder",
    [FOLDER, "/run/systemd/system/ai-client.service.d", "/etc/systemd/system.control/ai-client.service.d"],
)
def test_a_weakened_sandbox_is_drift_and_mended_without_a_loss(rig: Rig, folder: str) -> None:
    """The preview names file and lines, the run sets the file aside and restarts; its text is still there."""
    rig.ask(Wanted())
    path = put(rig, "User=root\nProtectSystem=no", folder=folder)
    assert not holds(rig, Wanted())
    (change,) = rig.ask(Wanted(check=True)).changes
    assert change.path == f"{folder}/own.conf"
    assert "User=root" in change.after
    assert path.exists()
    mended = rig.ask(Wanted())
    assert (mended.failed, mended.actions) == (False, ("daemon-reload", "restart ai-client.service"))
    assert not path.exists()
    assert "ProtectSystem=no" in path.with_name("own.conf.set-aside").read_text()
    assert not rig.ask(Wanted(check=True)).changed
    put(rig, "User=root", folder=folder)
    rig.ask(Wanted())
    assert len(list(path.parent.iterdir())) == 2


def test_other_drop_ins_are_shown_and_stay(rig: Rig) -> None:
    """In every answer, that of an unchanged host too; nothing is restarted; a secret in one is masked."""
    rig.ask(Wanted())
    path = put(rig, "LimitNOFILE=1000\nEnvironment=API_TOKEN=hs_live_0123456789abcdef")
    commands = rig.host.state["commands"]
    for wanted in (Wanted(check=True), Wanted()):
        answer = rig.ask(wanted)
        assert (answer.failed, answer.changed) == (False, False)
        (note,) = answer.notes
        assert "LimitNOFILE=1000" in note
        assert "0123456789abcdef" not in note
    assert holds(rig, Wanted())
    assert "LimitNOFILE" in rig.path("/etc/ai-client/seal").read_text()
    assert rig.host.state["commands"] == commands
    path.write_text("[Service]\nUser=root\n")
    assert not holds(rig, Wanted())


OPENING = [
    ("ai-client.socket", "SocketMode=0777"),
    ("ai-client.socket", "SocketUser=nobody"),
    ("ai-client.socket", "ListenStream=/srv/open.sock"),
    ("ai-client.socket", "ExecStartPost=/bin/sh -c id"),
    ("ai-client.socket", "Service=other.service"),
    ("ai-client-tcp.socket", "ListenStream=0.0.0.0:8800"),
    ("ai-client-tcp.socket", "ListenFIFO=/run/other"),
]
CLOSING = [
    ("ai-client.socket", "SocketMode=0660"),
    ("ai-client.socket", "Backlog=4096"),
    ("ai-client.socket", "ListenStream="),
    ("ai-client-tcp.socket", "BindToDevice=lo"),
    ("ai-client-tcp.socket", "KeepAlive=yes"),
]


def put_in(folder: Path, unit: str, line: str, *, name: str = "") -> Path:
    path = folder / f"etc/systemd/system/{name or unit}.d/own.conf"
    path.parent.mkdir(parents=True)
    section = "[Socket]" if unit.endswith(".socket") else "[Service]"
    path.write_text(f"{section}\n{line}\n")
    return path


@pytest.mark.parametrize(("unit", "line"), OPENING)
def test_a_line_that_opens_a_socket_further_is_drift(tmp_path: Path, unit: str, line: str) -> None:
    """Another address, more rights, another service behind it, a program that root runs."""
    put_in(tmp_path, unit, line)
    (found,) = drop_ins(Tree(str(tmp_path)), UNITS)
    assert found.is_drift


@pytest.mark.parametrize(("unit", "line"), CLOSING)
def test_a_line_that_closes_or_tunes_a_socket_is_shown_and_stays(
    tmp_path: Path, unit: str, line: str
) -> None:
    """Those are the team's own business."""
    put_in(tmp_path, unit, line)
    (found,) = drop_ins(Tree(str(tmp_path)), UNITS)
    assert not found.is_drift
    assert line in found.note()


@pytest.mark.parametrize("name", ["service", "ai-.service"])
def test_a_drop_in_of_other_units_too_is_told_and_never_set_aside(tmp_path: Path, name: str) -> None:
    """`service.d` is of every service on the host: what it takes from ours is said, and it stays."""
    put_in(tmp_path, "ai-client.service", "ProtectSystem=no", name=name)
    (found,) = drop_ins(Tree(str(tmp_path)), UNITS)
    assert not found.is_drift
    assert "it weakens the service (ProtectSystem=no)" in found.note()


def test_an_opened_socket_is_closed_by_a_run(rig: Rig) -> None:
    """The file is set aside, and sockets and service start anew."""
    rig.ask(Wanted())
    path = rig.path("/etc/systemd/system/ai-client-tcp.socket.d/own.conf")
    path.parent.mkdir(parents=True)
    path.write_text("[Socket]\nListenStream=0.0.0.0:8800\n")
    rig.host.systemctl("daemon-reload")
    assert not holds(rig, Wanted())
    assert "0.0.0.0:8800" in rig.ask(Wanted(check=True)).changes[0].after
    mended = rig.ask(Wanted())
    assert (mended.failed, mended.actions) == (False, ("daemon-reload", "restart sockets and service"))
    assert not path.exists()
    assert not rig.ask(Wanted(check=True)).changed


def test_a_name_that_is_no_utf_8_is_told_in_a_form_that_all_can_print(rig: Rig) -> None:
    """From a host of another locale: half a character ends the engine's log, and with it the preview."""
    rig.ask(Wanted())
    rig.path(FOLDER).mkdir()
    (Path(os.fsdecode(bytes(rig.path(FOLDER)) + b"/gr\xf6sse.conf"))).write_text("[Service]\nNice=5\n")
    answer = json.loads(rig.ask(Wanted(check=True)).encode().partition(": ")[2])
    (note,) = answer["notes"]
    assert note.encode().decode() == note
    assert note.startswith(f"drop-in {FOLDER}/gr\ufffd")
    assert note.endswith("sse.conf, left alone: Nice=5")
