import pytest

from infra.config import upstreams
from infra.config.schema import FleetSettings
from infra.errors import SettingsError
from infra.hosts import fleet, house_rules
from infra.hosts.house_rules import is_loopback, secret_in
from infra.state import quota
from tests.infra.stacks import HOST_KEY, KEY, shipped

ANYWHERE = "0.0.0.0"  # noqa: S104 - an address that the rules are about
TOKEN = {"app": {"token_sha256": "0" * 64}}
API, HOST = "groups/ai_api_clients", "groups/ai_api_clients/hosts/web-prod-01"


def settings(*changes: tuple[str, object], stack: str = "production") -> FleetSettings:
    """A shipped stack with places in it set to other values."""
    config = shipped(stack)
    for path, value in changes:
        place = config
        *parents, last = path.split("/")
        for part in parents:
            place = place.setdefault(part, {})
        place[last] = value
    return upstreams.with_variables(FleetSettings.model_validate({"stack": stack, **config}))


def check(*changes: tuple[str, object], stack: str = "production") -> None:
    declared = settings(*changes, stack=stack)
    house_rules.check(declared, quota.compile_limits(declared, fleet.build(declared)))


BROKEN = [
    (f"{API}/vars/ai_verify_ssl", False, "fleet:groups.ai_api_clients.vars.ai_verify_ssl", "whoever answers"),
    ("vars/ai_verify_ssl", False, "fleet:vars.ai_verify_ssl", "ai_custom_ca"),
    ("groups/production/vars/ai_verify_ssl", False, "fleet:groups.production.vars.ai_verify_ssl", "TLS"),
    (f"{HOST}/vars/ai_verify_ssl", False, "hosts.web-prod-01.vars.ai_verify_ssl", "TLS"),
    (f"{API}/vars/ai_base_url", "http://10.0.0.9/v1", "vars.ai_base_url", "https://"),
    (
        "vars/ai_upstreams",
        {"other": {"base_url": "http://llm.example.com/v1"}},
        "fleet:vars.ai_upstreams.other.base_url",
        "https://",
    ),
    (
        "upstreams",
        {"other": {"baseUrl": "http://llm.example.com/v1", "keyFrom": "google"}},
        "fleet:upstreams.other.baseUrl",
        "https://",
    ),
    (f"{API}/vars/ai_gateway_host", ANYWHERE, "vars.ai_gateway_host", "no tenant has a token"),
    (f"{API}/vars/ai_gateway_host", "::", "vars.ai_gateway_host", "token_sha256"),
    (f"{API}/vars/ansible_ssh_common_args", "-o StrictHostKeyChecking=no", "ssh_common_args", "pinned"),
    (f"{API}/vars/ansible_host_key_checking", False, "ansible_host_key_checking", "pinned"),
    (f"{API}/vars/ansible_paramiko_host_key_auto_add", True, "host_key_auto_add", "pinned"),
    (f"{HOST}/vars/ansible_connection", "paramiko", "ansible_connection", "pinned"),
    (f"{API}/vars/ansible_become_password", "let me in", "ansible_become_password", "clear text"),
    (f"{API}/vars/ansible_ssh_pass", "let me in", "ansible_ssh_pass", "clear text"),
    (
        f"{API}/vars/ai_proxy_url",
        "http://me:word@proxy:3128",
        "vars.ai_proxy_url",
        "an address with a password",
    ),
    (
        f"{API}/vars/ai_cost_tags",
        {"note": [f"our key: {KEY}"]},
        "vars.ai_cost_tags.note.0",
        "an upstream key",
    ),
    (f"{API}/vars/ai_custom_ca", "-----BEGIN RSA PRIVATE KEY-----", "ai_custom_ca", "a private key"),
    ("ssh/identityFile", KEY, "fleet:ssh.identityFile", "an upstream key"),
    ("account", {"rpm": 300}, "fleet:account.rpm", "add up to 420"),
    ("account", {"rpm": 5000, "tpm": 9}, "fleet:account.tpm", "has no limit (ai_tpm 0)"),
]


@pytest.mark.parametrize(
    ("path", "value", "culprit", "said"), BROKEN, ids=[f"{p}={v}" for p, v, *_ in BROKEN]
)
def test_a_broken_house_rule_is_refused_by_its_key(path: str, value: object, culprit: str, said: str) -> None:
    """Each rule ends the program before any resource is made, and names the place in the stack's file."""
    with pytest.raises(SettingsError) as raised:
        check((path, value))
    assert raised.value.culprit.endswith(culprit)
    assert said in str(raised.value)
    assert raised.value.remedy


@pytest.mark.parametrize("secret", [KEY, "letmein", "word@"])
def test_a_disclosed_secret_is_not_repeated(secret: str) -> None:
    """What must not be in the configuration is not in the error either, wherever it was found."""
    places = [
        (f"{API}/vars/ai_cost_tags", {secret: secret, "more": KEY}),
        (f"{API}/vars/ansible_password", secret),
        (f"{API}/vars/ai_proxy_url", f"http://me:{secret}x@proxy"),
    ]
    for place in places:
        with pytest.raises(SettingsError) as raised:
            check(place)
        assert secret not in str(raised.value)


FINE = [
    [],
    [(f"{API}/vars/ai_base_url", "http://127.0.0.1:8000/v1")],
    [("upstreams", {"ours": {"baseUrl": "http://10.0.0.5:8000/v1", "needsKey": False}})],
    [(f"{API}/vars/ai_verify_ssl", True)],
    [(f"{API}/vars/ai_gateway_host", ANYWHERE), (f"{API}/vars/ai_tenants", TOKEN)],
    [("vars/ai_gateway_host", ANYWHERE), ("groups/production/vars/ai_gateway_port", 0)],
    [("vars/ai_tenants", TOKEN), (f"{HOST}/vars/ai_gateway_host", "10.0.1.11")],
    [(f"{API}/vars/ai_proxy_url", "http://proxy:3128")],
    [(f"{API}/vars/ansible_connection", "ssh")],
    [(f"{API}/vars/ansible_become_password", "{{ lookup('ansible.builtin.env', 'SUDO') }}")],
    [(f"{API}/vars/ai_model_default", "see hs_test_")],
    [(f"{HOST}/hostKeys", [HOST_KEY])],
    [("account", {"rpm": 420})],
    [("account", {"rpm": 420, "tpm": 700}), ("vars/ai_tpm", 100)],
]


@pytest.mark.parametrize("changes", FINE)
def test_what_keeps_the_house_rules_passes(changes: list[tuple[str, object]]) -> None:
    """The shipped stack and its ordinary variants break no rule."""
    check(*changes)


def test_dev_may_leave_tls_unverified_and_use_plain_http() -> None:
    """The simulator of the dev stack speaks HTTP; certificates on a developer's machine are their own affair."""
    check(stack="dev")
    check(("vars/ai_verify_ssl", False), stack="dev")


def test_a_nearer_scope_decides() -> None:
    """A group that turns TLS verification on again for all its hosts is judged by what they see."""
    off = ("vars/ai_verify_ssl", False)
    on = [(f"groups/{group}/vars/ai_verify_ssl", True) for group in ("ai_api_clients", "ai_batch_workers")]
    check(off, *on)
    with pytest.raises(SettingsError):
        check(off, on[0])


def test_the_hosts_limits_are_added_up_over_groups() -> None:
    """Five hosts at 100 and two at 50 are 600 a minute: one less is over the account."""
    limits = [(f"{API}/vars/ai_rpm", 100), ("groups/ai_batch_workers/vars/ai_rpm", 50)]
    check(*limits, ("account", {"rpm": 600}))
    with pytest.raises(SettingsError, match="add up to 600 a minute, the account has 599"):
        check(*limits, ("account", {"rpm": 599}))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "localhost", "::1", "[::1]"])
def test_an_address_of_the_machine_itself_is_loopback(address: str) -> None:
    """All of 127/8, ::1 and the name for them."""
    assert is_loopback(address)


@pytest.mark.parametrize(
    "address", ["", ANYWHERE, "::", "10.0.0.1", "localhost.example", "{{ ansible_host }}"]
)
def test_any_other_address_can_be_reached(address: str) -> None:
    """What cannot be told to be loopback counts as reachable."""
    assert not is_loopback(address)


@pytest.mark.parametrize(
    "text", ["hs_live_", "the hs_test_ prefix", "https://user@host/x", "ssh://host:22/a@b"]
)
def test_what_only_looks_alike_is_no_secret(text: str) -> None:
    """A prefix alone, a login without a password and a port are nothing to refuse."""
    assert secret_in(text) is None
