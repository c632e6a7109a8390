"""What others have on real hosts, and hosts set up otherwise than ours: nothing is taken, nothing breaks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ansible.folder_host import KEY
from tests.ansible.real_fleet import Fleet

pytestmark = pytest.mark.hosts

EXPORTER = "/etc/systemd/system/ai-client-exporter.service"
NOTES = "/etc/ai-client/notes.txt"
TOOL = "/opt/ai-client/team/tool"


@pytest.fixture
def clean(fleet: Fleet) -> Iterator[Fleet]:
    """Hosts that nothing of ours is on, before and after."""
    yield fleet
    assert fleet.play("decommission", key=KEY).status == 0


def test_a_persons_account_is_refused_or_adopted_and_never_deleted(clean: Fleet) -> None:
    """An account `ai-client` with a home and files, before the first deploy; then the host leaves again."""
    fleet = clean
    fleet.on("h1", "useradd --create-home --shell /bin/bash ai-client && echo mine > /home/ai-client/file")
    try:
        for options in (("--check",), ()):
            refused = fleet.play("deploy", *options, key=KEY)
            assert refused.status != 0
            assert "was not made by this project" in refused.results["h1"]["message"]
        assert fleet.on("h1", "ls /opt") == ""
        adopted = fleet.play("deploy", key=KEY, variables={"ai_adopt_account": True})
        assert adopted.status == 0, adopted.output
        assert fleet.on("h1", "systemctl is-active ai-client") == "active"
        assert fleet.play("decommission", key=KEY).status == 0
        assert fleet.on("h1", "cat /home/ai-client/file; getent passwd ai-client | cut -d: -f6,7") == (
            "mine\n/home/ai-client:/bin/bash"
        )
        # The other host had none: there it was made, and went.
        assert fleet.on("h2", "getent passwd ai-client; getent group ai-client; true") == ""
    finally:
        fleet.on("h1", "userdel --remove ai-client 2>/dev/null; groupdel ai-client 2>/dev/null; true")


def test_what_the_team_has_beside_ours_runs_on(clean: Fleet) -> None:
    """Their own ai-client-exporter.service, and files in our folders: no drift, and left alone at the end."""
    fleet = clean
    assert fleet.play("deploy", key=KEY).status == 0
    unit = "[Service]\\nExecStart=/bin/sleep infinity\\n[Install]\\nWantedBy=multi-user.target\\n"
    fleet.on(
        "h1", f"printf '{unit}' > {EXPORTER}; systemctl daemon-reload; systemctl start ai-client-exporter"
    )
    fleet.on("h1", f"echo theirs > {NOTES}; mkdir -p /opt/ai-client/team; echo theirs > {TOOL}")
    try:
        looked = fleet.play("deploy", "--check", key=KEY)
        assert (looked.status, looked.changed) == (0, {"h1": False, "h2": False}), looked.output
        assert fleet.play("deploy", key=KEY).status == 0
        gone = fleet.play("decommission", key=KEY)
        assert gone.status == 0, gone.output
        assert NOTES in gone.results["h1"]["message"]
        assert (
            fleet.on("h1", f"systemctl is-active ai-client-exporter; cat {NOTES} {TOOL}")
            == "active\ntheirs\ntheirs"
        )
        assert fleet.on("h1", "ls /etc/ai-client /opt/ai-client") == (
            "/etc/ai-client:\nnotes.txt\n\n/opt/ai-client:\nteam"
        )
    finally:
        fleet.on(
            "h1",
            f"systemctl stop ai-client-exporter; rm -rf {EXPORTER} /etc/ai-client /opt/ai-client/team; "
            "rmdir /opt/ai-client; systemctl daemon-reload; true",
        )


def test_a_drop_in_that_gives_the_service_root_is_set_aside(clean: Fleet) -> None:
    """`User=root`, `ProtectSystem=no`: named by the look, undone by the run, and the file is still there."""
    fleet = clean
    assert fleet.play("deploy", key=KEY).status == 0
    folder = "/etc/systemd/system/ai-client.service.d"
    text = "[Service]\\nUser=root\\nProtectSystem=no\\n"
    fleet.on("h1", f"mkdir -p {folder}; printf '{text}' > {folder}/debug.conf; systemctl daemon-reload")
    try:
        assert fleet.on("h1", "systemctl show -P User ai-client") == "root"
        looked = fleet.play("deploy", "--check", key=KEY)
        assert looked.results["h1"]["changed_paths"] == [f"{folder}/debug.conf"]
        assert not looked.results["h2"]["changed"]
        mended = fleet.play("deploy", key=KEY)
        assert mended.status == 0, mended.output
        shown = fleet.on("h1", "systemctl show -p User,ProtectSystem ai-client; ls " + folder)
        assert shown.split() == ["User=ai-client", "ProtectSystem=strict", "debug.conf.set-aside"]
        assert not any(fleet.play("deploy", "--check", key=KEY).changed.values())
    finally:
        fleet.on("h1", f"rm -rf {folder}; systemctl daemon-reload")


SUDO = "/etc/sudoers.d/zz-tests"


def test_root_with_a_strict_umask_and_no_path_is_no_obstacle(clean: Fleet) -> None:
    """`umask=077` and `secure_path=/nothing` in sudoers: programs are found, and the service can read its bytecode."""
    fleet = clean
    lines = 'Defaults umask=077\\nDefaults umask_override\\nDefaults secure_path="/nothing"\\n'
    fleet.on("h1", f"printf '{lines}' > {SUDO}; chmod 440 {SUDO}")
    try:
        deployed = fleet.play("deploy", key=KEY)
        assert deployed.status == 0, deployed.output
        unreadable = "find -L /opt/ai-client/current -not -perm -o+r -print -quit"
        assert fleet.ssh("h1", f"sudo /usr/bin/{unreadable}").stdout == b""
        assert fleet.play("verify", key=KEY).status == 0
        assert not any(fleet.play("deploy", "--check", key=KEY).changed.values())
        assert fleet.play("decommission", key=KEY).status == 0
    finally:
        fleet.ssh("h1", f"sudo /bin/rm -f {SUDO}")


def test_an_immutable_file_and_a_full_disk_are_said_by_the_look(clean: Fleet) -> None:
    """With the path and the remedy; the run says the same and changes nothing, the service runs on."""
    fleet = clean
    assert fleet.play("deploy", key=KEY).status == 0
    pid = fleet.on("h2", "systemctl show -P MainPID ai-client")
    mount = "mount -t tmpfs -o size=64k,mode=750 tmpfs /etc/ai-client"
    fill = "dd if=/dev/zero of=/etc/ai-client/fill bs=4k 2>/dev/null"
    fleet.on(
        "h2",
        f"cp -a /etc/ai-client /root/kept && {mount} && chgrp ai-client /etc/ai-client && "
        f"cp -a /root/kept/. /etc/ai-client && ({fill}; true)",
    )
    try:
        for options in (("--check",), ()):
            said = fleet.play("deploy", *options, key=KEY, variables={"ai_rpm": 77})
            assert said.status != 0
            message = said.results["h2"]["message"]
            assert "file system /etc/ai-client" in message
            assert "free space there" in message
        assert fleet.on("h2", "systemctl show -P MainPID ai-client") == pid
    finally:
        fleet.on("h2", "umount /etc/ai-client; rm -rf /root/kept")
    assert fleet.play("deploy", key=KEY).status == 0
