"""Keys that no file holds: credentials of systemd, and access tokens for what a host or pod is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ai_client.configure.identity import Tokens
from ai_client.settings import KeyMissingError, loads
from ai_client.testing import Simulator, SimulatorOptions
from ai_client.testing.reading import fingerprint
from tests.client.gateway.metadata_server import Metadata, metadata
from tests.client.service_rig import TEST_KEY, Rig, ai_client, running_service, until

CHAT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
FIRST, SECOND = "ya29.the-first-token", "ya29.the-second-token"


@pytest.fixture
def cloud() -> Iterator[Metadata]:
    with metadata() as server:
        yield server


async def ask(rig: Rig, text: str = "hello") -> int:
    """Another text each time, where the cache must not answer."""
    async with rig.client() as client:
        body = CHAT | {"messages": [{"role": "user", "content": text}]}
        return (await client.post("/v1/chat/completions", json=body)).status_code


async def test_a_token_of_google_is_renewed_before_it_ends(tmp_path: Path, cloud: Metadata) -> None:
    """Requests are signed by it, and by the next one from its renewal on; while none can be had the old one goes on."""
    cloud.token, cloud.lifetime_s = FIRST, 2
    accepted = frozenset({FIRST, SECOND})
    async with Simulator(SimulatorOptions(keys=accepted, key_prefix="")) as provider:
        api = "key_from = google"
        environment = {"GCE_METADATA_HOST": cloud.host}
        async with running_service(tmp_path, provider, api=api, environment=environment) as rig:
            assert await ask(rig, "question 1") == 200
            cloud.status, cloud.token = 503, SECOND
            await until(lambda: "token_not_renewed" in logged(tmp_path), what="a renewal that fails")
            assert await ask(rig, "question 2") == 200
            cloud.status, cloud.lifetime_s = 200, 3600
            provider.accepted_keys.discard(FIRST)
            await until(lambda: "token_renewed" in logged(tmp_path), what="the next renewal")
            assert await ask(rig, "question 3") == 200
    assert fingerprint(SECOND) in logged(tmp_path)
    assert FIRST not in logged(tmp_path)
    assert SECOND not in logged(tmp_path)


def logged(folder: Path) -> str:
    """Every log of the service, the audit trail too."""
    return "".join(path.read_text() for path in (folder / "log").iterdir())


async def test_azure_is_signed_to_as_its_token_wants(tmp_path: Path, cloud: Metadata) -> None:
    """A bearer's token, where a key of the same dialect goes as `api-key`."""
    async with Simulator(SimulatorOptions(keys=frozenset({cloud.token}), key_prefix="")) as provider:
        text = f"[upstream azure]\nbase_url = {provider.base_url}\ndialect = azure\nkey_from = azure\nmodels = gpt-4.1"
        environment = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": f"http://{cloud.host}"}
        async with (
            Simulator(SimulatorOptions(keys=frozenset({TEST_KEY}))) as first,
            running_service(
                tmp_path, first, extra=f"rate_limit = 60000\n{text}", environment=environment
            ) as rig,
            rig.client() as client,
        ):
            answer = await client.post("/v1/chat/completions", json=CHAT | {"model": "azure/gpt-4.1"})
            assert answer.status_code == 200, answer.text
        assert provider.last_headers["authorization"] == f"Bearer {cloud.token}"


def test_each_way_to_a_token_of_azure(cloud: Metadata, tmp_path: Path) -> None:
    """Metadata service, App Service, and a pod whose service account is federated: as Microsoft's libraries ask."""
    (tmp_path / "proof").write_text("of.the.pod\n")
    ways = (
        {"AZURE_POD_IDENTITY_AUTHORITY_HOST": f"http://{cloud.host}", "AZURE_CLIENT_ID": "one/of many"},
        {"IDENTITY_ENDPOINT": f"http://{cloud.host}/msi/token", "IDENTITY_HEADER": "of-the-app"},
        {
            "AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "proof"),
            "AZURE_TENANT_ID": "the-tenant",
            "AZURE_CLIENT_ID": "the-client",
            "AZURE_AUTHORITY_HOST": f"http://{cloud.host}/",
        },
    )
    for environment in ways:
        assert Tokens(pauses_s=()).token("azure", environment).secret == cloud.token
    (instance, _, _), (app, _, _), (_, _, form) = cloud.asked
    resource = "resource=https%3A%2F%2Fcognitiveservices.azure.com"
    assert instance.endswith(f"?api-version=2018-02-01&{resource}&client_id=one%2Fof%20many")
    assert app == f"/msi/token?api-version=2019-08-01&{resource}"
    assert form["scope"] == ["https://cognitiveservices.azure.com/.default"]
    assert form["client_assertion"] == ["of.the.pod"]


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("google", {"status": 404}, "key_from = google: no token (answered 404); run it on Google Cloud"),
        ("azure", {"status": 400}, "key_from = azure: no token (answered 400); attach a managed identity"),
        ("google", {"lifetime_s": None}, "key_from = google: no token (the answer contains no token)"),
    ],
)
def test_no_token_is_an_error_that_says_why(
    cloud: Metadata, kind: str, change: dict[str, int], said: str
) -> None:
    """Never what was answered."""
    for name, value in change.items():
        setattr(cloud, name, value)
    environment = {
        "GCE_METADATA_HOST": cloud.host,
        "AZURE_POD_IDENTITY_AUTHORITY_HOST": f"http://{cloud.host}",
    }
    with pytest.raises(KeyMissingError) as raised:
        Tokens(pauses_s=()).token(kind, environment)
    assert str(raised.value).startswith(said)
    assert cloud.token not in str(raised.value)


def test_a_federated_pod_without_its_names_is_told_which(tmp_path: Path) -> None:
    environment = {"AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "proof"), "AZURE_TENANT_ID": "x"}
    with pytest.raises(KeyMissingError, match="AZURE_CLIENT_ID not set beside AZURE_FEDERATED_TOKEN_FILE"):
        Tokens(pauses_s=()).token("azure", environment)


def test_a_token_is_asked_for_once_until_it_is_due(cloud: Metadata) -> None:
    """By a clock of the test's: 55 of 60 minutes, then anew; one that has ended is none."""
    now = [0.0]
    tokens = Tokens(clock=lambda: now[0], pauses_s=())
    environment = {"GCE_METADATA_HOST": cloud.host}
    assert tokens.renew_in_s() is None
    tokens.token("google", environment)
    assert tokens.renew_in_s() == 3300
    now[0] = 3299
    tokens.token("google", environment)
    assert len(cloud.asked) == 1
    now[0], cloud.status = 3301, 500
    assert tokens.token("google", environment).secret == cloud.token
    now[0] = 3601
    with pytest.raises(KeyMissingError, match="answered 500"):
        tokens.token("google", environment)
    assert cloud.token not in repr(tokens)


def test_a_tokens_end_comes_though_the_wall_clock_is_set_back(
    cloud: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted by a clock that nobody sets."""
    tokens = Tokens(pauses_s=())
    tokens.token("google", {"GCE_METADATA_HOST": cloud.host})
    monkeypatch.setattr("time.time", lambda: 0.0)
    due_s = tokens.renew_in_s()
    assert due_s is not None
    assert 3290 < due_s <= 3300


def test_a_pod_waits_for_its_metadata_server(cloud: Metadata) -> None:
    """It answers some seconds after the pod has begun (googleapis/google-auth-library-python issue 604)."""
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        cloud.status = 200 if len(waited) == 2 else 503

    cloud.status = 503
    found = Tokens(wait=wait).token("google", {"GCE_METADATA_HOST": cloud.host})
    assert (found.secret, waited) == (cloud.token, [0.5, 1.0])
    cloud.status = 404
    with pytest.raises(KeyMissingError, match="answered 404"):
        Tokens(wait=wait).token("google", {"GCE_METADATA_HOST": cloud.host})
    assert len(waited) == 2


async def test_a_credential_of_systemd_signs_and_rotates(tmp_path: Path) -> None:
    """From the folder that systemd names to the service; a blank next one, as the unit's default lays it, is none."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "ai-client.key").write_text(TEST_KEY)
    (folder / "ai-client.key.next").write_text("\n")
    environment = {"CREDENTIALS_DIRECTORY": str(folder)}
    following = "hs_test_the_next_key"
    async with Simulator(SimulatorOptions(keys=frozenset({TEST_KEY}))) as provider:
        api = "key_from = credential"
        async with running_service(tmp_path, provider, api=api, environment=environment) as rig:
            assert await ask(rig) == 200
            (folder / "ai-client.key.next").write_text(following)
            assert (await rig.command("reload")).code == 0
            provider.accepted_keys = {following}
            assert await ask(rig, "another question") == 200
            report = json.loads((await rig.command("--health-check", "--json")).out)
            assert report["checks"]["key"]["detail"].startswith(f"from {folder}/ai-client.key")


async def test_a_command_without_the_credential_says_where_it_is(tmp_path: Path) -> None:
    """Only the service has it; a key of the environment is tried first, so that the next one can be tried beside it."""
    config = tmp_path / "conf"
    async with Simulator(SimulatorOptions(keys=frozenset({TEST_KEY}))) as provider:
        config.write_text(
            f"[api]\nbase_url = {provider.base_url}\nkey_from = credential\n[gateway]\nsocket = {tmp_path}/s\n"
        )
        found = await ai_client("--health-check", "--json", "--config", str(config))
        assert "systemd handed this process no credentials" in found.json()["checks"]["key"]["detail"]
        environment = {"AI_CLIENT_API_KEY": TEST_KEY}
        found = await ai_client("--health-check", "--json", "--config", str(config), environment=environment)
        assert found.json()["checks"]["upstream"]["ok"]


def test_another_source_is_refused_by_its_name() -> None:
    with pytest.raises(Exception, match=r"key_from.*file, credential, google, azure"):
        loads("[api]\nkey_from = vault\n", path="conf")
