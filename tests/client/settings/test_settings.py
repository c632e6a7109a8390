"""The configuration file: defaults, kinds, and errors that name line, section, key and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from ai_client.settings import ConfigError, KeyMissingError, ModelPrice, Settings, load, loads, read_key


def faults(text: str) -> list[str]:
    """What is wrong with a text, a line each."""
    with pytest.raises(ConfigError) as caught:
        loads(text, path="ai.conf")
    return str(caught.value).splitlines()


def test_an_empty_file_has_the_documented_defaults() -> None:
    """Spec 2.1: the values in brackets."""
    settings = loads("", path="ai.conf")
    assert settings == Settings()
    assert settings.api.timeout_s == 30
    assert settings.api.max_retries == 3
    assert settings.api.connection_pool_size == 100
    assert settings.performance.rate_limit_rpm == 60
    assert settings.gateway.socket == Path("/run/ai-client/gateway.sock")
    assert settings.gateway.port == 8800
    assert settings.model_costs["deepseek-v3.2"] == ModelPrice(0.42, 0.42, 0.42)


def test_every_section_is_read() -> None:
    """One key of each section reaches its field."""
    text = """
    [api]
    base_url = https://example.org/v1/
    [models]
    fallback_chain = gpt-4.1, deepseek-v3.2
    [model_costs]
    gpt-4.1 = input=8, output=24, cached_input=2
    own-model = 1.5
    [performance]
    token_limit = 90000
    [caching]
    ttl_seconds_embeddings = 60
    [logging]
    level = debug
    [security]
    verify_ssl = False
    proxy_url =
    [monitoring]
    metrics_port = 0
    [gateway]
    port = 0
    [tenant web]
    uid = 1000
    rate_share = 0.5
    [budget]
    daily_usd = 10
    timezone = Europe/Berlin
    [routing]
    critical_share = 0.2
    [batch]
    mode = true
    [audit]
    retention_days = 7
    [cost_tags]
    team = search
    """
    settings = loads(text, path="ai.conf")
    assert settings.api.base_url == "https://example.org/v1"
    assert settings.models.fallback_chain == ("gpt-4.1", "deepseek-v3.2")
    assert settings.model_costs["gpt-4.1"] == ModelPrice(8, 24, 2)
    assert settings.model_costs["own-model"] == ModelPrice(1.5, 1.5, 1.5)
    assert settings.performance.token_limit_tpm == 90000
    assert settings.caching.ttl_embeddings_s == 60
    assert settings.logging.level == "DEBUG"
    assert not settings.security.verify_ssl
    assert settings.security.proxy_url is None
    assert (settings.gateway.port, settings.monitoring.metrics_port) == (0, 0)
    assert [(tenant.name, tenant.uid) for tenant in settings.tenants] == [("web", 1000)]
    assert settings.budget.daily_usd == 10
    assert settings.routing.critical_share == 0.2
    assert settings.batch.mode
    assert settings.audit.retention_days == 7
    assert settings.cost_tags == {"team": "search"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[api]\ntimout = 3",
            "ai.conf:2: [api] timout: is not a key of this section; did you mean `timeout`?",
        ),
        ("[apy]\ntimeout = 3", "ai.conf:1: [apy]: this section is not known; did you mean `api`?"),
        ("[api]\ntimeout = soon", "ai.conf:2: [api] timeout: the value `soon` can't be used; write a number"),
        ("[api]\ntimeout = nan", "ai.conf:2: [api] timeout: the value `nan` can't be used; write a number"),
        ("[api]\nmax_retries =", "ai.conf:2: [api] max_retries: has no value; write a whole number"),
        (
            "[api]\nbase_url = ftp://x",
            "ai.conf:2: [api] base_url: the value `ftp://x` can't be used; write an",
        ),
        (  # OpenHands/OpenHands#13079, altic-dev/FluidVoice#581
            "[upstream a]\nbase_url = https://x/v1/chat/completions/",
            "ai.conf:2: [upstream a] base_url: the value `https://x/v1/chat/completions/` can't be used; "
            "write it without /chat/completions, which is added to it: https://x/v1",
        ),
        (
            "[caching]\nenabled = maybe",
            "ai.conf:2: [caching] enabled: the value `maybe` can't be used; write true",
        ),
        (
            "[caching]\ncache_dir = x",
            "ai.conf:2: [caching] cache_dir: the value `x` can't be used; write an abs",
        ),
        (
            "[logging]\nlevel = LOUD",
            "ai.conf:2: [logging] level: the value `LOUD` can't be used; write one of",
        ),
        (
            "[budget]\ntimezone = Mars",
            "ai.conf:2: [budget] timezone: the value `Mars` can't be used; write a time",
        ),
        (
            "[model_costs]\nm = output=3",
            "ai.conf:2: [model_costs] m: the value `output=3` can't be used; write `8`",
        ),
        ("[tenant a]\nuid = -1", "ai.conf:2: [tenant a] uid: the value `-1` can't be used; write a whole"),
        ("[tenant a b]\nuid = 1", "ai.conf:1: [tenant a b]: is not a tenant's name; use letters"),
        ("timeout = 3", "ai.conf:1: timeout: stands before any section; put it under one"),
        ("[api]\njunk", "ai.conf:2: [api]: this line has no `key = value`; write"),
        ("[api\ntimeout = 3", "ai.conf:1: this section header is not closed or empty; write `[section]`"),
        ("[api]\ntimeout = 3\ntimeout = 4", "ai.conf:3: [api] timeout: is already set on line 2; keep one"),
        ("[api]\n[api]", "ai.conf:2: [api]: this section is already on line 1; join the two"),
    ],
)
def test_a_fault_names_line_section_key_and_remedy(text: str, expected: str) -> None:
    """Culprit, reason, remedy."""
    assert faults(text)[0].startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[api]\nkeepalive_connections = 200",
            "[api] keepalive_connections: 200 connections can't be kept of 100",
        ),
        ("[gateway]\nport = 9090", "[gateway] port: is also monitoring's metrics_port"),
        ("[tenant a]\npriority = 1", "[tenant a]: nobody can be this tenant"),
        ("[tenant a]\nuid = 1\n[tenant b]\nuid = 1", "[tenant b] uid: is also that of tenant a"),
        (
            "[tenant a]\nuid = 1\nrate_share = 0.7\n[tenant b]\nuid = 2\nrate_share = 0.4",
            "[tenant b] rate_share: the tenants' shares sum to more than 1",
        ),
    ],
)
def test_values_that_are_impossible_together_are_refused(text: str, expected: str) -> None:
    """Each is fine alone."""
    assert expected in faults(text)[0]


def test_all_faults_are_told_at_once_in_file_order() -> None:
    """An operator mends a file in one go."""
    found = faults("[api]\ntimeout = x\nbase_url = y\n[nope]\n[gateway]\nport = 70000")
    assert [line.split(": ")[0] for line in found] == ["ai.conf:2", "ai.conf:3", "ai.conf:4", "ai.conf:6"]


@pytest.mark.parametrize(
    "line",
    [
        "api_key = hs_test_abcdefgh99",
        "key = whatever99",
        "base_url = hs_live_abcdefgh99",
        "hs_test_abcdefgh99 = 1",
    ],
)
def test_a_key_in_the_file_is_an_error_that_does_not_show_it(line: str) -> None:
    """The key's place is a file of its own."""
    [found] = faults(f"[api]\n{line}")
    assert "a key does not belong in this file" in found
    assert "99" not in found


def test_a_proxy_password_is_not_shown_in_an_error() -> None:
    """A value that can't be used may still be a secret."""
    [found] = faults("[security]\nproxy_url = htp://user:p4ssw0rd@proxy:3128")
    assert "p4ssw0rd" not in found


def test_a_missing_file_names_itself_and_the_remedy(tmp_path: Path) -> None:
    """No traceback, no guess."""
    with pytest.raises(ConfigError, match=r"no\.conf: can't be read .*; write the file"):
        load(tmp_path / "no.conf")


def test_a_file_in_another_encoding_names_the_line(tmp_path: Path) -> None:
    """UTF-8 is the file's encoding."""
    path = tmp_path / "a.conf"
    path.write_bytes(b"[api]\n# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"a\.conf:2: is not UTF-8"):
        load(path)


def test_the_key_file_wins_over_the_environment(tmp_path: Path) -> None:
    """What is named explicitly is meant."""
    path = tmp_path / "key"
    path.write_text("hs_test_fromfile1\n")
    key = read_key(key_file=path, environment={"AI_CLIENT_API_KEY": "hs_test_fromenv11"})
    assert (key.secret, key.source) == ("hs_test_fromfile1", str(path))
    assert "fromfile" not in repr(key)


@pytest.mark.parametrize("variable", ["AI_CLIENT_API_KEY", "HOLYSHEEP_API_KEY"])
def test_the_key_comes_from_the_environment_without_a_file(variable: str) -> None:
    """Both names are known to users."""
    assert read_key(key_file=None, environment={variable: "hs_test_fromenv11"}).source == variable


@pytest.mark.parametrize(
    "text", ["", "sk-other-vendor-key", "short", "hs_test_two words here", '"hs_test_quoted"']
)
def test_a_key_of_another_shape_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    """As it is declared to begin, alone."""
    path = tmp_path / "key"
    path.write_text(text)
    with pytest.raises(KeyMissingError) as caught:
        read_key(key_file=path, environment={}, prefixes=("hs_live_", "hs_test_"))
    assert str(path) in str(caught.value)
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize("text", ["an-azure-key/of+any==", "0123456789abcdef", "x" * 2000])
def test_any_providers_key_is_taken_where_no_prefix_is_declared(tmp_path: Path, text: str) -> None:
    """Providers have forms of their own."""
    path = tmp_path / "key"
    path.write_text(text + "\n")
    assert read_key(key_file=path, environment={}).secret == text


def test_holysheeps_keys_are_known_by_their_prefix() -> None:
    """Of its own address, unless another prefix is declared; of other addresses nothing is known."""
    assert loads("", path="x").api.known_prefixes == ("hs_live_", "hs_test_")
    assert loads("[api]\nbase_url = https://api.openai.com/v1", path="x").api.known_prefixes == ()
    declared = loads("[api]\nbase_url = https://api.openai.com/v1\nkey_prefix = sk-, rk-", path="x")
    assert declared.api.known_prefixes == ("sk-", "rk-")


UPSTREAM = """
[upstream azure-eu]
base_url = https://example.openai.azure.com/openai/v1/
dialect = Azure
models = gpt-4.1=my-deployment, o3
order = 2
weight = 0.5
"""


_ENGINE = "[coordination]\nendpoint = redis://engine\n"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[budget]\nshared = true\ndaily_usd = 5", "budget.*shared.*needs an engine"),
        (f"{_ENGINE}[budget]\nshared = true\nhard_stop = false", "set hard_stop = true"),
        (f"{_ENGINE}[budget]\nshared = true\nmonthly_usd = 4000001", "more than the 4,000,000 dollars"),
        (f"{_ENGINE}[budget]\nshared = true\n[tenant a]\nuid = 1\ndaily_usd = 5e6", "tenant a.*4,000,000"),
    ],
)
def test_budgets_that_can_t_be_shared_are_told(text: str, wanted: str) -> None:
    """With what to set instead."""
    with pytest.raises(ConfigError, match=wanted):
        loads(text, path="x")


@pytest.mark.parametrize(
    "address",
    [
        "engine:6379",
        "redis://engine:99999",
        "redis://engine/?ssl=1",
        "redis://engine/name",
        "redis:///1",
        "unix:///x",
    ],
)
def test_an_address_of_an_engine_that_would_be_misread_is_told(address: str) -> None:
    """A part of it that nobody reads would lead elsewhere than it says; the text shows the form that is read."""
    with pytest.raises(ConfigError, match=r"write rediss://HOST:PORT or redis://HOST:PORT"):
        loads(f"[coordination]\nendpoint = {address}\n", path="x")
    for good in ("redis://engine", "rediss://engine:6380/", "redis://[::1]:6379/15"):
        assert loads(f"[coordination]\nendpoint = {good}\n", path="x").coordination.endpoint == good.rstrip(
            "/"
        )


def test_budgets_are_shared_where_it_is_said() -> None:
    """And not by default."""
    assert loads(f"{_ENGINE}[budget]\nshared = true\ndaily_usd = 5", path="x").budget.shared
    assert not loads(_ENGINE, path="x").budget.shared


def test_an_upstream_section() -> None:
    """Its models are known by our names and by its own."""
    (upstream,) = loads(UPSTREAM, path="x").upstreams
    assert (upstream.name, upstream.dialect, upstream.order, upstream.weight) == ("azure-eu", "azure", 2, 0.5)
    assert upstream.base_url == "https://example.openai.azure.com/openai/v1"
    assert upstream.models == {"gpt-4.1": "my-deployment", "o3": "o3"}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[upstream a]\n", "has no base_url"),
        ("[upstream a b]\nbase_url = https://x.org", "is not an upstream's name"),
        ("[upstream a]\nbase_url = https://x.org\ndialect = cohere", "write one of compatible"),
        ("[upstream a]\nbase_url = https://x.org\nmodels = m, m=n", "name m once"),
        ("[upstream a]\nbase_url = https://x.org\nweight = 0", "above 0"),
        ("[gateway]\npass_through = v1/batches", "write paths such as"),
        ("[gateway]\npass_through = /control/reload", "write paths such as"),
    ],
)
def test_a_wrong_upstream_is_told(text: str, wanted: str) -> None:
    """With its section and what to write."""
    with pytest.raises(ConfigError, match=wanted):
        loads(text, path="x")
