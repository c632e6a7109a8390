import pytest

from infra import project_files
from infra.config import checks
from infra.errors import ManySettingsError, SettingsError
from tests.infra.stacks import HOST_KEY, KEY, load, shipped


def changed(path: str, value: object) -> dict[str, object]:
    """The production configuration with one place in it set to another value."""
    config = shipped("production")
    place = config
    *parents, last = path.split("/")
    for part in parents:
        place = place.setdefault(part, {})
    place[last] = value
    return config


HOST = "groups/ai_api_clients/hosts/web-prod-01"

WRONG = [
    ("unknownKey", 1, "fleet:unknownKey", "unknown key"),
    ("maxRemoval", 3, "fleet:maxRemoval", "did you mean 'maxRemovals'?"),
    ("environment", "", "fleet:environment", "at least 1 character"),
    ("maxRemovals", "many", "fleet:maxRemovals", "a valid integer"),
    ("maxRemovals", -1, "fleet:maxRemovals", "greater than or equal to 0"),
    (
        "groups/ai_api_clients/soruce",
        "static",
        "fleet:groups.ai_api_clients.soruce",
        "did you mean 'source'?",
    ),
    ("groups/ai_api_clients/source", "cloud", "fleet:groups.ai_api_clients.source", "'static'"),
    ("groups/Bad-Name", {"hosts": {}}, "fleet:groups.Bad-Name", "a group name is"),
    ("groups/production/children", ["nowhere"], "fleet:groups.production.children", "no group 'nowhere'"),
    ("groups/production/children", ["production"], "fleet:groups.production.children", "contains itself"),
    (f"{HOST}/adress", "10.0.1.99", "hosts.web-prod-01.adress", "did you mean 'address'?"),
    (f"{HOST}/address", "10.0.1.12", "web-prod-02.address", "10.0.1.12:22 is declared twice"),
    (f"{HOST}/address", "not an address", "web-prod-01.address", "an IP address or a DNS name"),
    (f"{HOST}/address", "-oProxyCommand=x", "web-prod-01.address", "an IP address or a DNS name"),
    (f"{HOST}/port", 70000, "web-prod-01.port", "less than or equal to 65535"),
    (f"{HOST}/user", "root", "web-prod-01.user", "root never logs in"),
    (f"{HOST}/jump", ["nowhere"], "web-prod-01.jump", "no jump host 'nowhere'"),
    (f"{HOST}/hostKeys", ["not a key"], "web-prod-01.hostKeys", "a public host key"),
    (f"{HOST}/suite", "trixie", "web-prod-01.suite", "only local hosts have one"),
    (
        "groups/ai_batch_workers/hosts/web-prod-01",
        {"address": "10.9.9.9"},
        "web-prod-01",
        "is declared twice",
    ),
    ("groups/ai_api_clients/vars/ai_timout", 3, "vars.ai_timout", "did you mean 'ai_timeout'?"),
    ("groups/ai_api_clients/vars/ai_timeout", "long", "vars.ai_timeout", "is a text, not a whole number"),
    ("groups/ai_api_clients/vars/ai_timeout", -5, "vars.ai_timeout", "write a number above 0 to 86400"),
    (
        "groups/ai_api_clients/vars/ai_timeout",
        True,
        "vars.ai_timeout",
        "is true or false, not a whole number",
    ),
    ("groups/ai_api_clients/vars/ai_api_key", KEY, "vars.ai_api_key", "a key does not belong here"),
    ("groups/ai_api_clients/vars/ai_model_default", "gpt-4.2", "ai_model_default", "did you mean 'gpt-4.1'?"),
    ("vars/ai_cost_tags", {"team": None}, "fleet:vars.ai_cost_tags.team", "has no value (null)"),
    ("vars/ai_cost_tags", {"team": ["a"]}, "fleet:vars.ai_cost_tags.team", "is a list, and only a text"),
    ("vars/ai_cost_tags", {"team": {"a": "b"}}, "fleet:vars.ai_cost_tags.team", "is a map, and only a text"),
    ("vars/ai_cost_tags", {"team": "a\x00b"}, "fleet:vars.ai_cost_tags.team", "can't be printed"),
    ("vars/ai_cost_tags", {"team": "\ud800"}, "fleet:vars.ai_cost_tags.team", "can't be printed"),
    ("vars/ai_cost_tags", {"a\x1bb": "c"}, "fleet:vars.ai_cost_tags", "holds a name"),
    ("vars/ai_cost_tags", {"a=b": "x"}, "fleet:vars.ai_cost_tags", "holds a name"),
    ("vars/ai_cost_tags", {"[api]": "x"}, "fleet:vars.ai_cost_tags", "holds a name"),
    ("vars/ai_cost_tags", {"team": "a\nkey = b"}, "fleet:vars.ai_cost_tags.team", "several lines"),
    ("vars/ai_tenants", {"web]": {}}, "fleet:vars.ai_tenants", "holds a name"),
    ("vars/ai_provider", " x", "fleet:vars.ai_provider", "blanks around it"),
    ("vars/not a name", 1, "fleet:vars.not a name", "is not a valid name for an Ansible variable"),
    ("gate", {"seconds": -1}, "fleet:gate.seconds", "greater than or equal to 0"),
    ("gate", {"maxErrorShare": 2}, "fleet:gate.maxErrorShare", "less than or equal to 1"),
    ("gate", {"maxErorShare": 0.1}, "fleet:gate.maxErorShare", "did you mean 'maxErrorShare'?"),
    ("apiKeys", {"nobody": KEY}, "fleet:apiKeys.nobody", "no such group"),
    ("apiKey", "sk-whatever", "fleet:apiKey", "starts with hs_live_ or hs_test_"),
    ("groups", "none", "fleet:groups", "is not a structure"),
    ("local", {"link": "198.18.0.0/31x"}, "fleet:local", "write bridge as"),
]


@pytest.mark.parametrize(("path", "value", "culprit", "said"), WRONG, ids=[f"{p}={v}" for p, v, *_ in WRONG])
def test_a_wrong_value_is_answered_with_its_key_and_a_remedy(
    path: str, value: object, culprit: str, said: str
) -> None:
    """Whatever is wrong: one error, with the key, the reason and what to do, before any resource is made."""
    with pytest.raises(SettingsError) as raised:
        load(changed(path, value), secret=("apiKey", "apiKeys"))
    assert culprit in raised.value.culprit
    assert said in str(raised.value)
    assert raised.value.remedy


def test_every_mistake_is_named_at_once() -> None:
    """Of single values, between values, and of variables: whoever corrects a file needs one look at the answer."""
    config = changed("maxRemovals", "many") | {"gaet": {}, "vars": {"ai_timout": 1, "ai_provider": None}}
    config["groups"]["production"]["children"].append("nowhere")
    config["groups"]["ai_api_clients"]["hosts"]["web-prod-01"]["address"] = "10.0.1.12"
    with pytest.raises(ManySettingsError) as raised:
        load(config)
    said = str(raised.value)
    assert len(said.splitlines()) == len(raised.value.errors) == 6
    for culprit in (
        "maxRemovals",
        "gaet",
        "ai_timout",
        "ai_provider",
        "production.children",
        "web-prod-02.address",
    ):
        assert culprit in said
    assert (raised.value.culprit, raised.value.remedy) == (
        raised.value.errors[0].culprit,
        raised.value.errors[0].remedy,
    )


def test_a_refused_host_does_not_make_mistakes_of_what_names_it() -> None:
    """One mistake is one line."""
    config = changed(f"{HOST}/port", 0)
    config["jumpHosts"] = {"hop": {"addres": "10.0.0.1"}}
    config["groups"]["ai_batch_workers"]["jump"] = ["hop"]
    with pytest.raises(ManySettingsError) as raised:
        load(config)
    assert sorted(error.culprit for error in raised.value.errors) == [
        "fleet:groups.ai_api_clients.hosts.web-prod-01.port",
        "fleet:jumpHosts.hop.addres",
        "fleet:jumpHosts.hop.address",
    ]


def test_a_missing_key_is_named() -> None:
    """A required key that is not there is named with the way to set it."""
    config = shipped("production")
    del config["environment"]
    with pytest.raises(
        SettingsError, match=r"fleet:environment: is missing; .*pulumi config set --path environment"
    ):
        load(config)


def test_a_key_in_clear_text_is_refused_and_not_repeated() -> None:
    """An upstream key must be stored encrypted; the error does not hold it."""
    with pytest.raises(SettingsError, match="stored in clear text") as raised:
        load(changed("apiKey", KEY), secret=())
    assert KEY not in str(raised.value)


def test_a_malformed_key_is_not_repeated() -> None:
    """Of a key that is not one, the error shows nothing."""
    with pytest.raises(SettingsError) as raised:
        load(changed("apiKey", "hs_live_with blanks in it"))
    assert "blanks" not in str(raised.value)


def test_an_empty_key_is_said_to_be_empty() -> None:
    """`pulumi config set --secret apiKey` takes an empty input in silence, without a terminal."""
    with pytest.raises(
        SettingsError, match=r"fleet:apiKey: is empty; set it with 'pulumi config set --secret apiKey'"
    ):
        load(changed("apiKey", ""))


def test_no_representation_of_the_settings_shows_the_key() -> None:
    """Settings may be printed or logged by accident: the key is masked in them."""
    settings = load(changed("apiKey", KEY))
    assert KEY not in repr(settings) + str(settings) + settings.model_dump_json()
    assert settings.key_for("ai_api_clients") is not None


def test_a_groups_own_key_comes_before_the_stacks() -> None:
    """`apiKeys` names keys of single groups."""
    other = "hs_test_another_key"
    config = changed("apiKey", KEY) | {"apiKeys": {"ai_batch_workers": other}}
    settings = load(config, secret=("apiKey", "apiKeys"))
    batch, api = settings.key_for("ai_batch_workers"), settings.key_for("ai_api_clients")
    assert batch is not None
    assert api is not None
    assert (batch.get_secret_value(), api.get_secret_value()) == (other, KEY)


def test_a_model_of_ones_own_needs_a_price() -> None:
    """A model without a list price may be used once its cost is declared."""
    config = changed("groups/ai_api_clients/vars/ai_model_default", "our-model")
    config["groups"]["production"]["vars"]["ai_model_costs"] = {"our-model": 1.5}
    assert load(config).groups["ai_api_clients"].vars["ai_model_default"] == "our-model"


def test_a_host_key_may_be_declared() -> None:
    """Pinned host keys are written without host name."""
    settings = load(changed(f"{HOST}/hostKeys", [HOST_KEY]))
    assert settings.groups["ai_api_clients"].hosts["web-prod-01"].host_keys == (HOST_KEY,)


def test_a_local_host_outside_its_network_is_refused() -> None:
    """A local host lives on the fleet's bridge."""
    config = shipped("dev")
    config["groups"]["ai_api_clients"]["hosts"]["api-dev-01"]["address"] = "10.99.0.1"
    with pytest.raises(
        SettingsError, match=r"api-dev-01.address: is not in the bridge's network 10\.88\.0\.0/24"
    ):
        load(config, stack="dev")


def test_values_that_every_host_would_refuse_are_refused_before_one_is_asked() -> None:
    """All at once, by the role's own choices; what Ansible evaluates, and what is a secret, is not known here."""
    written = {
        "ai_log_level": "inof",
        "ai_python": "hots",
        "ai_gateway_port": 99999,
        "ai_metrics_port": 9090,
        "ai_timeout": -5,
        "ai_enable_metrics": "yess",
        "ai_dialect": "{{ dialect }}",
        "ai_gateway_unnamed_callers": "a-secret",
    }
    found = checks.variables(
        [("fleet:vars", written)], project_files.role_variables(), frozenset({"a-secret"})
    )
    assert [str(error) for error in found] == [
        "fleet:vars.ai_log_level: is 'inof', which is not one of its values; "
        "did you mean 'INFO'? (write DEBUG, INFO, WARNING, ERROR or CRITICAL)",
        "fleet:vars.ai_python: is 'hots', which is not one of its values; "
        "did you mean 'host'? (write host, own or auto)",
        "fleet:vars.ai_gateway_port: is 99999, which is out of bounds; write a number from 0 to 65535",
        "fleet:vars.ai_timeout: is -5, which is out of bounds; write a number above 0 to 86400",
        "fleet:vars.ai_enable_metrics: is a text, not true or false; write true or false",
    ]
