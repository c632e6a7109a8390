"""HashiCorp Vault and OpenBao, by their HTTP API: a key-value engine of version 1 or 2.

The environment is that of their own command line: VAULT_ADDR, VAULT_TOKEN, VAULT_NAMESPACE, VAULT_CACERT (or OpenBao's
names of these, BAO_ADDR and so on), and the token file of `vault login` and `bao login`.
What a secret holds is never in an error.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from pydantic import TypeAdapter, ValidationError

from infra.config.key_source import VaultAddress, VaultLoginSettings, VaultSettings
from infra.key_sources.held import Held, Surroundings, Wanted, from_fields

_TIMEOUT = httpx.Timeout(20.0, connect=5.0)
_CONNECT_ATTEMPTS = 3
_LONGEST_REASON = 300
_POD_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/token"
_REMEDIES = {
    400: "correct mount, path and login",
    403: "renew the token ('vault login', VAULT_TOKEN or login), and allow it to read this path",
    404: "correct mount, path and version, or put the secret there",
    429: "run it again in a minute",
    473: "name the active node as address",
    503: "unseal it, or run it again when it is back",
}


def read(source: VaultSettings, wanted: Wanted, around: Surroundings) -> Held:
    """Reads the secret, after a login where one is declared.

    Raises:
        KeySourceError: Vault gave none, or the secret holds no key.
    """
    environment = _of_one_server(around.environment)
    with _Vault(source, wanted, environment) as vault:
        token = vault.log_in(source.login) if source.login else _token(wanted, environment)
        prefix = f"{source.mount}/data" if source.version == 2 else source.mount
        answer = vault.ask("GET", f"{prefix}/{source.path}", token=token)
    fields: Any = answer.get("data")
    fields = fields.get("data") if source.version == 2 and isinstance(fields, dict) else fields
    where = f"{source.mount}/{source.path}"
    if not isinstance(fields, dict):
        remedy = "put the secret there, or correct mount, path and version (1 or 2) of the engine"
        raise wanted.error(f"{where} holds no fields", remedy)
    return from_fields(fields, field=source.field, next_field=source.next_field, wanted=wanted, where=where)


def _of_one_server(given: Mapping[str, str]) -> Mapping[str, str]:
    """The environment with OpenBao's names as Vault's where it has none of those: no server gets the other's token."""
    names = ("ADDR", "TOKEN", "NAMESPACE", "CACERT")
    if any(given.get(f"VAULT_{name}") for name in names):
        return given
    return {**given, **{f"VAULT_{name}": given[f"BAO_{name}"] for name in names if given.get(f"BAO_{name}")}}


class _Vault:
    """One server for a few requests."""

    def __init__(self, source: VaultSettings, wanted: Wanted, environment: Mapping[str, str]) -> None:
        self._wanted = wanted
        self._environment = environment
        self._address = _address(source, wanted, environment)
        namespace = source.namespace or environment.get("VAULT_NAMESPACE")
        self._headers = {"X-Vault-Request": "true"} | ({"X-Vault-Namespace": namespace} if namespace else {})
        self._client = httpx.Client(
            timeout=_TIMEOUT,
            verify=self._trust(environment.get("VAULT_CACERT")),
            follow_redirects=False,
        )

    def __enter__(self) -> _Vault:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def _trust(self, ca_path: str | None) -> ssl.SSLContext | bool:
        if not ca_path:
            return True
        try:
            return ssl.create_default_context(cafile=ca_path)
        except OSError as error:
            reason = f"the certificates that VAULT_CACERT names can't be read ({error.strerror or error})"
            raise self._wanted.error(reason, "correct VAULT_CACERT") from error

    def log_in(self, login: VaultLoginSettings) -> str:
        """A token for the caller's proof of who it is."""
        path = f"auth/{login.mount or login.method}/login"
        if login.method == "approle":
            proof = {"role_id": login.role, "secret_id": self._given("VAULT_SECRET_ID")}
        else:
            proof = {"role": login.role, "jwt": self._jwt(login)}
        auth = self.ask("POST", path, body=proof).get("auth")
        token = auth.get("client_token") if isinstance(auth, dict) else None
        if not isinstance(token, str) or not token:
            raise self._wanted.error(f"the login at {path} gave no token", "correct login")
        return token

    def _jwt(self, login: VaultLoginSettings) -> str:
        path = login.jwt_file or (_POD_FILE if login.method == "kubernetes" else None)
        if path is None:
            return self._given("VAULT_JWT")
        try:
            return Path(path).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            reason = f"the token file {path} can't be read ({getattr(error, 'strerror', None) or 'not text'})"
            raise self._wanted.error(reason, "correct login.jwtFile") from error

    def _given(self, variable: str) -> str:
        value = self._environment.get(variable, "").strip()
        if not value:
            raise self._wanted.error(f"{variable} is not set", "set it for the program that runs Pulumi")
        return value

    def ask(
        self, method: str, path: str, *, token: str = "", body: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The JSON object that Vault answers with; one redirect to the active node is followed."""
        url = f"{self._address}/v1/{quote(path)}"
        headers = self._headers | ({"X-Vault-Token": token} if token else {})
        answer = self._send(method, url, headers, body)
        if answer.status_code == 307:
            url = self._active_node(url, answer.headers.get("location", ""))
            answer = self._send(method, url, headers, body)
        if answer.status_code != 200:
            raise self._refused(path, answer)
        content = _json(answer)
        if not isinstance(content, dict):
            remedy = "set address to Vault itself"
            raise self._wanted.error(f"{self._address} does not answer as Vault does", remedy)
        return content

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: Mapping[str, str] | None
    ) -> httpx.Response:
        for attempt in range(_CONNECT_ATTEMPTS):
            try:
                return self._client.request(method, url, headers=headers, json=body)
            except httpx.ConnectError as error:
                if attempt == _CONNECT_ATTEMPTS - 1:
                    raise self._unreached(error) from error
            except httpx.HTTPError as error:
                raise self._unreached(error) from error
        raise AssertionError("the last attempt answers or raises")

    def _unreached(self, error: httpx.HTTPError) -> Exception:
        told = str(error) or type(error).__name__
        remedy = "check address, the network, and VAULT_CACERT if its certificate is from a CA of your own"
        return self._wanted.error(
            f"Vault at {self._address} gave no answer: {told[:_LONGEST_REASON]}", remedy
        )

    def _active_node(self, url: str, location: str) -> str:
        """Where a standby sends its callers; never from TLS to clear text, as the token goes along."""
        if urlsplit(location).scheme != urlsplit(url).scheme:
            reason = "Vault redirects to an address with another scheme"
            raise self._wanted.error(reason, "name the active node as address")
        return location

    def _refused(self, path: str, answer: httpx.Response) -> Exception:
        content = _json(answer)
        if _is_deleted(content):
            remedy = "undo the deletion ('vault kv undelete'), or write the secret again"
            return self._wanted.error(f"the newest version of {path} was deleted", remedy)
        told = (content.get("errors") or content.get("warnings")) if isinstance(content, dict) else None
        said = "; ".join(map(str, told))[:_LONGEST_REASON] if isinstance(told, list) else ""
        reason = f"Vault answered {answer.status_code} to {path}" + (f": {said}" if said else "")
        remedy = _REMEDIES.get(answer.status_code, "see Vault's log")
        return self._wanted.error(" ".join(reason.split()), remedy)


def _address(source: VaultSettings, wanted: Wanted, environment: Mapping[str, str]) -> str:
    if source.address:
        return source.address
    given = environment.get("VAULT_ADDR", "")
    if not given:
        raise wanted.error("Vault's address is not known", "write vault.address, or set VAULT_ADDR")
    try:
        return str(TypeAdapter(VaultAddress).validate_python(given))
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise wanted.error(f"VAULT_ADDR: {reason}", "correct VAULT_ADDR, or write vault.address") from None


def _token(wanted: Wanted, environment: Mapping[str, str]) -> str:
    """That of the environment, or of the last `vault login`."""
    given = environment.get("VAULT_TOKEN", "").strip()
    if given:
        return given
    path = Path(environment.get("HOME", "/nonexistent")) / ".vault-token"
    try:
        held = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        held = ""
    if not held:
        raise wanted.error("there is no Vault token", "run 'vault login', set VAULT_TOKEN, or declare login")
    return held


def _is_deleted(content: object) -> bool:
    """Whether a 404 is about a version that was deleted: Vault says so in the answer alone."""
    data = content.get("data") if isinstance(content, dict) else None
    metadata = data.get("metadata") if isinstance(data, dict) else None
    return isinstance(metadata, dict) and bool(metadata.get("deletion_time") or metadata.get("destroyed"))


def _json(answer: httpx.Response) -> object:
    try:
        return answer.json()
    except ValueError:
        return None
