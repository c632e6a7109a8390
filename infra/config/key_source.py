"""`fleet:keySource`: where an upstream key is kept, in the place of a secret of the stack."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from infra.config.model import Model, Region, RoleArn, matching

_FILE = re.compile(r"(?!(?:.*/)?\.\.(?:/|$))[^/~\s-][^~\n]*")
_PLACE = re.compile(r"[\w@.-]+(/[\w@.-]+)*")

# Below the project folder: a path of one machine would be in the state of all.
KeptFile = Annotated[
    str, matching(_FILE, "a file below the project folder is needed, such as 'secrets/live.yaml'")
]
_VaultPlace = Annotated[str, matching(_PLACE, "a path in Vault is needed, without a slash at either end")]


def _safe_address(value: str) -> str:
    """Over plain HTTP the token and the key could be read on the way."""
    parts = urlsplit(value)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("an address such as 'https://vault.example.com:8200' is needed")
    if parts.scheme == "http" and not _is_this_machine(parts.hostname):
        raise ValueError("is plain HTTP, so token and key could be read on the way: write https://")
    return value.rstrip("/")


def _is_this_machine(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


VaultAddress = Annotated[str, AfterValidator(_safe_address)]


class ApiKeySecretSettings(Model):
    """The upstream key in AWS Secrets Manager. `field` names the key if the secret is a JSON object."""

    secret_id: str = Field(min_length=1, max_length=2048)
    region: Region | None = None
    role_arn: RoleArn | None = None
    field: str | None = None


class VaultLoginSettings(Model):
    """How to get a token from Vault, if the caller has none.

    `approle` logs in with `VAULT_SECRET_ID`, `jwt` with `jwt_file` or `VAULT_JWT`, `kubernetes` with `jwt_file`.
    """

    method: Literal["approle", "jwt", "kubernetes"]
    role: str = Field(min_length=1, max_length=256)
    mount: _VaultPlace | None = None
    jwt_file: str | None = None


class VaultSettings(Model):
    """A key in a key-value engine of HashiCorp Vault or OpenBao."""

    path: _VaultPlace
    address: VaultAddress | None = None
    mount: _VaultPlace = "secret"
    version: Literal[1, 2] = 2
    namespace: str | None = None
    login: VaultLoginSettings | None = None
    field: str = Field(default="apiKey", min_length=1)
    next_field: str = Field(default="apiKeyNext", min_length=1)


class CommandSettings(Model):
    """A program that prints the key. It runs on the control machine, in the project folder, without a shell."""

    argv: tuple[str, ...] = Field(min_length=1)
    next_argv: tuple[str, ...] = ()
    timeout_s: float = Field(default=60, gt=0, le=600)
    field: str | None = None
    next_field: str = Field(default="apiKeyNext", min_length=1)


class SopsSettings(Model):
    """A file encrypted with SOPS. `sops` on the control machine decrypts it."""

    file: KeptFile
    field: str = Field(default="apiKey", min_length=1)
    next_field: str = Field(default="apiKeyNext", min_length=1)


class AgeSettings(Model):
    """A file encrypted with age. `age` on the control machine decrypts it."""

    file: KeptFile
    identity_file: str = Field(min_length=1)
    field: str | None = None
    next_field: str = Field(default="apiKeyNext", min_length=1)


class KeySourceSettings(Model):
    """Where an upstream key is kept. Use exactly one of these."""

    aws: ApiKeySecretSettings | None = None
    vault: VaultSettings | None = None
    command: CommandSettings | None = None
    sops: SopsSettings | None = None
    age: AgeSettings | None = None

    @property
    def chosen(self) -> tuple[str, Model]:
        """Name and settings of the kind that is used."""
        return self._named()[0]

    def _named(self) -> list[tuple[str, Model]]:
        held = ((name, getattr(self, name)) for name in type(self).model_fields)
        return [(name, value) for name, value in held if value is not None]

    @model_validator(mode="after")
    def _is_one(self) -> KeySourceSettings:
        named = self._named()
        if len(named) != 1:
            kinds = ", ".join(type(self).model_fields)
            found = " and ".join(name for name, _ in named) or "nothing"
            raise ValueError(f"names {found}, but a key has only one source: write one of {kinds}")
        return self
