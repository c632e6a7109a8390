"""What this machine must have."""

import pytest

from tools.hosts import prerequisites
from tools.hosts.commands import child_environment, run
from tools.hosts.errors import HostsError


def test_missing_programs_become_packages(tmp_path):
    """Each package once."""
    missing = prerequisites.missing_packages(("ssh", "ssh-keygen", "ip"), path=str(tmp_path))
    assert missing == ["iproute2", "openssh-client"]
    assert prerequisites.missing_packages(("mount",), path="/usr/bin") == []


def test_without_a_package_manager_the_packages_are_named(tmp_path):
    """Nothing else can be done on such a machine."""
    with pytest.raises(HostsError, match="this machine: lacks systemd-container; install"):
        prerequisites.require_programs(("systemd-nspawn",), print, path=str(tmp_path))


@pytest.mark.parametrize(
    ("before", "after"), [("128\n", "4096\n"), ("4096\n", "4096\n"), ("65536\n", "65536\n")]
)
def test_too_few_inotify_instances_are_raised_and_never_lowered(tmp_path, before, after):
    """And it is said."""
    setting = tmp_path / "max_user_instances"
    setting.write_text(before)
    said: list[str] = []
    prerequisites.require_inotify_instances(said.append, setting=setting)
    assert setting.read_text() == after
    assert said == (["raising fs.inotify.max_user_instances to 4096"] if before != after else [])


def test_a_failed_program_is_told_by_its_last_words():
    """With the remedy that its caller knows."""
    with pytest.raises(HostsError) as caught:
        run(["sh", "-c", "echo first >&2; echo 'no such thing' >&2; exit 3"], remedy="make one")
    assert (caught.value.reason, caught.value.remedy) == ("no such thing", "make one")
    with pytest.raises(HostsError, match="is not installed"):
        run(["no-such-program"], remedy="")
    with pytest.raises(HostsError, match="no end after 0 s; look"):
        run(["sleep", "5"], timeout_s=0.1, remedy="look")


def test_children_are_given_no_secret():
    """A few variables and no other; and the folders of system programs, which a user's path often lacks."""
    given = child_environment({"PATH": "/opt/bin", "HOME": "/root", "PULUMI_CONFIG_PASSPHRASE": "x"})
    path = "/opt/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert given == {"HOME": "/root", "LC_ALL": "C.UTF-8", "PATH": path}
