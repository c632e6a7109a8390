"""Names of namespaces, interfaces and folders."""

from pathlib import Path

import pytest

from tools.hosts.errors import HostsError
from tools.hosts.places import FOLDER_VARIABLE, fleet_places, images_folder, interface_name


def test_a_fleet_lies_in_the_usual_folder():
    """Where nothing else is said."""
    places = fleet_places("dev", {})
    assert places.folder == Path("/var/lib/ai-client-fleet/local/dev")
    assert (places.netns, places.host("web-1").netns) == ("acf-dev", "acf-dev--web-1")


def test_two_folders_never_share_a_namespace():
    """Tests and a user's fleet of the same name live side by side."""
    here, there = (fleet_places("dev", {FOLDER_VARIABLE: folder}) for folder in ("/srv/a", "/srv/b"))
    usual = fleet_places("dev", {})
    assert len({here.netns, there.netns, usual.netns}) == 3
    assert len({here.link_interface, there.link_interface, usual.link_interface}) == 3


def test_no_fleet_takes_anothers_namespaces_for_its_own():
    """Purge goes by names, and one fleet's may begin like another's."""
    usual, marked = fleet_places("dev", {}), fleet_places("dev", {FOLDER_VARIABLE: "/srv/a"})
    own = ["acf-dev", "acf-dev--web", "acf-dev--2"]
    foreign = ["acf-dev-2", "acf-dev-2--web", "acf-devel", marked.netns, marked.host("web").netns, "dev"]
    assert [name for name in own + foreign if usual.is_namespace(name)] == own


def test_names_of_interfaces_fit_the_kernel_and_differ():
    """15 characters at most."""
    made = {interface_name("dev", "port", f"host-{number}") for number in range(2000)}
    assert len(made) == 2000
    assert {len(name) for name in made} == {15}


def test_names_of_machines_fit_systemd():
    """64 characters at most, also for the longest fleet and host in a folder elsewhere."""
    places = fleet_places("f" * 20, {FOLDER_VARIABLE: "/srv/a"})
    assert len(places.host("h" * 32).machine) <= 64


@pytest.mark.parametrize("folder", ["/srv/a b", "/srv/a:b", "/srv/a,b", "/srv/%h", '/srv/"', "/srv/a\nb"])
def test_a_folder_that_mount_or_ssh_would_misread_is_refused(folder):
    """Overlay options know no quotes for a colon, ssh expands a percent sign."""
    with pytest.raises(HostsError, match=f"set {FOLDER_VARIABLE} to an absolute path"):
        fleet_places("dev", {FOLDER_VARIABLE: folder})
    with pytest.raises(HostsError, match="set XDG_CACHE_HOME to an absolute path"):
        images_folder({"XDG_CACHE_HOME": folder}, Path("/root"))


def test_images_lie_in_the_users_cache():
    """XDG_CACHE_HOME, else ~/.cache."""
    assert images_folder({}, Path("/root")) == Path("/root/.cache/ai-client-fleet/images")
    assert images_folder({"XDG_CACHE_HOME": "/srv/c"}, Path("/root")) == Path("/srv/c/ai-client-fleet/images")
