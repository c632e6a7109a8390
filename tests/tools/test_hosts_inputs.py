"""What the verbs accept; nothing here touches the machine."""

import json
from ipaddress import IPv4Address, IPv4Interface

import pytest

from tools.hosts.errors import HostsError
from tools.hosts.inputs import (
    Endpoint,
    FleetName,
    HostName,
    HostSpec,
    Link,
    NetworkSpec,
    ServiceSpec,
    check_placement,
    read,
    suite_name,
)

HOST = {
    "fleet": "dev",
    "name": "web-1",
    "address": "10.88.0.21/24",
    "suite": "trixie",
    "link": None,
    "login": "deploy",
}
LINK = {"control": "198.18.0.1/30", "jump": "198.18.0.2/30"}
NETWORK = {"fleet": "dev", "bridge": "10.88.0.1/24", "link": LINK}


def test_a_host_order_becomes_a_value():
    """Addresses are parsed, the link may be none."""
    assert read(HostSpec, json.dumps(HOST)) == HostSpec(
        "dev", "web-1", IPv4Interface("10.88.0.21/24"), "trixie", None
    )


def test_a_network_order_becomes_a_value():
    """Both ends of the link are addresses of one network."""
    link = Link(IPv4Interface("198.18.0.1/30"), IPv4Interface("198.18.0.2/30"))
    assert read(NetworkSpec, json.dumps(NETWORK)) == NetworkSpec("dev", IPv4Interface("10.88.0.1/24"), link)
    assert read(NetworkSpec, json.dumps({**NETWORK, "link": None})).link is None


def test_a_service_order_becomes_a_value():
    """Its arguments stay words."""
    order = {
        "fleet": "dev",
        "name": "sim",
        "argv": ["a", "b c"],
        "ready": {"address": "10.88.0.1", "port": 80},
    }
    ready = Endpoint(IPv4Address("10.88.0.1"), 80)
    assert read(ServiceSpec, json.dumps(order)) == ServiceSpec("dev", "sim", ("a", "b c"), ready)


def test_what_takes_down_may_be_given_the_order_that_put_up():
    """A resource keeps one standard input for both ways."""
    assert read(HostName, json.dumps(HOST)) == HostName("dev", "web-1")
    assert read(FleetName, json.dumps(NETWORK)).fleet == "dev"


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "..",
        ".",
        "",
        "a/b",
        "a b",
        "A",
        "-a",
        "a-",
        "a--b",
        "a\n",
        "a\0",
        "ä",
        "a" * 33,
        "a.b",
        "$(id)",
        None,
        7,
    ],
)
def test_a_hostile_name_is_refused(name):
    """Names become paths, namespaces and host names; they separate with two hyphens."""
    with pytest.raises(HostsError, match="is not a name; use up to"):
        read(HostSpec, json.dumps({**HOST, "name": name}))
    with pytest.raises(HostsError, match="is not a name; use up to"):
        read(FleetName, json.dumps({"fleet": name}))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"address": "10.88.0.21"}, "address: '10.88.0.21' leaves room for no other"),
        ({"address": "10.88.0.0/24"}, "address: '10.88.0.0/24' is not a host's address"),
        ({"address": "fd00::1/64"}, "address: 'fd00::1/64' is not an address"),
        ({"address": 5}, "address: 5 is not an address"),
        ({"suite": "sid"}, "suite: 'sid' is not known"),
        ({"login": "root"}, "login: 'root' does not exist on local hosts"),
        ({"colour": "red"}, "stdin: 'colour' is unknown"),
    ],
)
def test_a_wrong_host_order_names_the_key(changed, said):
    """Culprit, reason and remedy, before anything is made."""
    with pytest.raises(HostsError) as caught:
        read(HostSpec, json.dumps({**HOST, **changed}))
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("text", ["", "[]", "nonsense", '"x"', "{}"])
def test_what_is_no_order_is_refused(text):
    """Standard input holds one JSON object."""
    with pytest.raises(HostsError, match=r"^stdin: "):
        read(HostSpec, text)


@pytest.mark.parametrize(
    "link",
    [
        {"control": "198.18.0.1/30"},
        {"control": "198.18.0.1/30", "jump": "198.18.0.6/30"},
        {"control": "198.18.0.1/30", "jump": "198.18.0.1/30"},
        "198.18.0.1/30",
    ],
)
def test_a_link_has_two_ends_of_one_network(link):
    """Anything else could not carry a packet."""
    with pytest.raises(HostsError, match=r"^link: "):
        read(NetworkSpec, json.dumps({**NETWORK, "link": link}))


@pytest.mark.parametrize("argv", [None, [], "ls", ["ls", 1]])
def test_arguments_are_a_list_of_words(argv):
    """No shell ever sees them."""
    with pytest.raises(HostsError, match=r"^argv(\.1)?: "):
        read(ServiceSpec, json.dumps({"fleet": "dev", "name": "sim", "argv": argv}))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"address": "10.89.0.21/24"}, "is not in the network 10.88.0.0/24"),
        ({"address": "10.88.0.21/25"}, "is not in the network 10.88.0.0/24"),
        ({"address": "10.88.0.1/24"}, "is the bridge's own"),
        ({"link": "198.18.0.1/30"}, "is not the network's"),
    ],
)
def test_a_host_must_fit_its_network(changed, said):
    """Found before the host is made."""
    network = read(NetworkSpec, json.dumps(NETWORK))
    with pytest.raises(HostsError, match=said):
        check_placement(read(HostSpec, json.dumps({**HOST, **changed})), network)


def test_a_suite_is_a_debian_that_boots_here():
    """Debian 11 to 14, the last of which is testing."""
    for suite in ("bullseye", "bookworm", "trixie", "forky"):
        assert suite_name(suite) == suite
    with pytest.raises(HostsError, match="suite: 'sid' is not known; use one of"):
        suite_name("sid")
