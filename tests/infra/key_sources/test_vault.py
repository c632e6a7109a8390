import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from infra.config.schema import FleetSettings
from infra.errors import KeySourceError, SettingsError
from tests.infra.key_sources.vault_server import DELETED, TOKEN, Vault, serving
from tests.infra.key_sources.wanted import FOREIGN, NEXT, OLD, kept, keys
from tests.infra.stacks import load, shipped

PLACE = "secret/fleet/upstream"
WITH_TOKEN = {"VAULT_TOKEN": TOKEN}


@pytest.fixture
def vault() -> Iterator[Vault]:
    with serving() as server:
        server.secrets[PLACE] = {"apiKey": OLD, "owner": "platform"}
        yield server


def read(vault: Vault, environment: dict[str, str] | None = None, **chosen: Any) -> FleetSettings:
    """Production with its key in that Vault."""
    source = {"vault": {"address": vault.url, "path": "fleet/upstream"} | chosen}
    return kept(source, project=Path(), environment=WITH_TOKEN if environment is None else environment)


def test_a_rotation_goes_by_two_fields(vault: Vault) -> None:
    """The next key is laid down beside the old one; then it is the key, and the field is empty or gone."""
    settings = read(vault)
    assert keys(settings) == (OLD, None)
    assert OLD not in repr(settings) + settings.model_dump_json()
    vault.secrets[PLACE]["apiKeyNext"] = NEXT
    assert keys(read(vault)) == (OLD, NEXT)
    vault.secrets[PLACE]["apiKey"] = NEXT
    assert keys(read(vault)) == (NEXT, None)
    vault.secrets[PLACE]["apiKeyNext"] = ""
    assert keys(read(vault)) == (NEXT, None)


def test_an_engine_of_version_1_a_mount_and_fields_of_ones_own(vault: Vault) -> None:
    vault.secrets["kv/fleet/upstream"] = {"live": {"key": OLD}, "to come": NEXT}
    settings = read(vault, mount="kv", version=1, field="live.key", nextField="to come")
    assert keys(settings) == (OLD, NEXT)
    assert vault.asked == ["/v1/kv/fleet/upstream"]


@pytest.mark.parametrize(
    ("login", "proof", "environment"),
    [
        (
            {"method": "approle", "role": "fleet"},
            {"role_id": "fleet", "secret_id": "of-the-pipeline"},
            {"VAULT_SECRET_ID": "of-the-pipeline"},
        ),
        (
            {"method": "jwt", "role": "fleet", "mount": "gitlab"},
            {"role": "fleet", "jwt": "of.the.job"},
            {"VAULT_JWT": "of.the.job"},
        ),
    ],
)
def test_a_pipeline_logs_in_by_what_it_is(
    vault: Vault, login: dict[str, str], proof: dict[str, str], environment: dict[str, str]
) -> None:
    """Without a token of anybody's: the proof is in the environment, as CI hands it out."""
    vault.proofs[f"auth/{login.get('mount', login['method'])}/login"] = proof
    assert keys(read(vault, environment, login=login)) == (OLD, None)
    with pytest.raises(KeySourceError, match=r"fleet:keySource: VAULT_(SECRET_ID|JWT) is not set; set it"):
        read(vault, {}, login=login)


def test_a_pod_logs_in_by_its_token(vault: Vault, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of.the.pod\n")
    vault.proofs["auth/kubernetes/login"] = {"role": "fleet", "jwt": "of.the.pod"}
    login = {"method": "kubernetes", "role": "fleet", "jwtFile": str(tmp_path / "token")}
    assert keys(read(vault, {}, login=login)) == (OLD, None)
    (tmp_path / "token").unlink()
    with pytest.raises(KeySourceError, match=r"can't be read \(No such file or directory\); correct login"):
        read(vault, {}, login=login)


def test_the_environment_is_that_of_vaults_own_command(vault: Vault, tmp_path: Path) -> None:
    """VAULT_ADDR, VAULT_NAMESPACE, and the token of `vault login`."""
    vault.namespace = "platform/ai"
    (tmp_path / ".vault-token").write_text(TOKEN)
    environment = {"VAULT_ADDR": vault.url, "VAULT_NAMESPACE": "platform/ai", "HOME": str(tmp_path)}
    source = {"vault": {"path": "fleet/upstream"}}
    assert keys(kept(source, project=tmp_path, environment=environment)) == (OLD, None)
    with pytest.raises(
        KeySourceError, match=r"Vault's address is not known; write vault.address, or set VAULT_ADDR"
    ):
        kept(source, project=tmp_path, environment={"HOME": str(tmp_path)})
    with pytest.raises(KeySourceError, match="there is no Vault token; run 'vault login'"):
        kept(source, project=tmp_path, environment={"VAULT_ADDR": vault.url})


def test_openbaos_own_names_count_where_none_of_vaults_is_set(vault: Vault, tmp_path: Path) -> None:
    """As `bao` takes them (bank-vaults/secret-init pull 406); a token for one server never goes to the other."""
    source = {"vault": {"path": "fleet/upstream"}}
    bao = {"BAO_ADDR": vault.url, "BAO_TOKEN": TOKEN, "HOME": str(tmp_path)}
    assert keys(kept(source, project=tmp_path, environment=bao)) == (OLD, None)
    with pytest.raises(KeySourceError, match="there is no Vault token"):
        kept(source, project=tmp_path, environment={**bao, "VAULT_ADDR": vault.url})


def test_certificates_are_verified(tmp_path: Path) -> None:
    """By the system's authorities, or those of VAULT_CACERT."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with serving(context) as vault:
        vault.secrets[PLACE] = {"apiKey": OLD}
        trusting = WITH_TOKEN | {"VAULT_CACERT": str(tmp_path / "ca.pem")}
        assert keys(read(vault, trusting)) == (OLD, None)
        with pytest.raises(
            KeySourceError, match=r"gave no answer: .*CERTIFICATE_VERIFY_FAILED.*VAULT_CACERT"
        ):
            read(vault)
        with pytest.raises(KeySourceError, match="VAULT_CACERT names can't be read"):
            read(vault, WITH_TOKEN | {"VAULT_CACERT": str(tmp_path / "none.pem")})


def test_a_standby_leads_to_the_active_node_and_never_off_tls(vault: Vault) -> None:
    """As Vault's own clients follow it: one step, with the token."""
    with serving() as standby:
        standby.standby_of = vault.url
        assert keys(read(standby)) == (OLD, None)
        standby.standby_of = vault.url.replace("http:", "https:")
        with pytest.raises(KeySourceError, match="redirects to an address with another scheme"):
            read(standby)


def test_a_token_goes_over_tls_or_stays_on_this_machine(tmp_path: Path) -> None:
    """In the stack's file and in VAULT_ADDR alike."""
    source = {"vault": {"address": "http://vault.example.com:8200", "path": "fleet/upstream"}}
    with pytest.raises(SettingsError, match=r"fleet:keySource.vault.address: is plain HTTP.*write https://"):
        load(shipped("production") | {"keySource": source})
    environment = WITH_TOKEN | {"VAULT_ADDR": "http://vault.example.com:8200"}
    with pytest.raises(KeySourceError, match="VAULT_ADDR: is plain HTTP"):
        kept({"vault": {"path": "fleet/upstream"}}, project=tmp_path, environment=environment)


@pytest.mark.parametrize(
    ("change", "chosen", "said"),
    [
        ({"is_sealed": True}, {}, "answered 503 to secret/data/fleet/upstream: Vault is sealed; unseal it"),
        (
            {},
            {"path": "fleet/other"},
            "answered 404 to secret/data/fleet/other; correct mount, path and version",
        ),
        ({"secrets": {PLACE: DELETED}}, {}, "secret/data/fleet/upstream was deleted; undo the deletion"),
        ({}, {"version": 1}, "answered 404 to secret/fleet/upstream: Invalid path for a versioned K/V"),
        (
            {},
            {"field": "key"},
            "secret/fleet/upstream has no field key; write the key into it, or name its field",
        ),
        (
            {},
            {"field": "owner"},
            "field owner of secret/fleet/upstream is not a key: one starts with hs_live_",
        ),
        ({}, {"namespace": "other"}, "answered 404"),
        (
            {},
            {"login": {"method": "jwt", "role": "x", "jwtFile": "/dev/null"}},
            "answered 400 to auth/jwt/login",
        ),
        ({"secrets": {PLACE: {"apiKey": FOREIGN}}}, {}, "field apiKey of secret/fleet/upstream is not a key"),
        ({"secrets": {PLACE: {"apiKey": OLD, "apiKeyNext": FOREIGN}}}, {}, "or take apiKeyNext away"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_that_is_held(
    vault: Vault, change: dict[str, Any], chosen: dict[str, Any], said: str
) -> None:
    """Culprit, reason and remedy; never a token, a proof or what a field holds."""
    for name, value in change.items():
        setattr(vault, name, value)
    with pytest.raises(KeySourceError) as raised:
        read(vault, **chosen)
    assert str(raised.value).startswith("fleet:keySource: ")
    assert said in str(raised.value)
    assert not any(secret in str(raised.value) for secret in (OLD, FOREIGN, TOKEN))


def test_a_refused_token_is_renewed_and_not_shown(vault: Vault) -> None:
    with pytest.raises(
        KeySourceError, match=r"answered 403 .*permission denied .*; renew the token"
    ) as raised:
        read(vault, {"VAULT_TOKEN": FOREIGN})
    assert FOREIGN not in str(raised.value)


def test_nobody_at_the_address(tmp_path: Path) -> None:
    with serving() as vault:
        gone = vault
    with pytest.raises(KeySourceError, match=r"gave no answer: .*refused.*; check address"):
        read(gone)


def test_another_server_is_not_taken_for_vault(vault: Vault) -> None:
    vault.answer = lambda *_: (200, [])  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(KeySourceError, match="does not answer as Vault does"):
        read(vault)
