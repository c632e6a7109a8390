"""What the project ships to hosts, read as data: role variables, list prices, and digests of all of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from infra.errors import ContentError

PROJECT = Path(__file__).resolve().parent.parent
ROLE = PROJECT / "ansible" / "roles" / "ai_client"

# What a deploy depends on: the role with its plugins, and what the artefact is built from.
_DEPLOYED = (
    "ansible/ai-client-deploy.yml",
    "ansible/ansible.cfg",
    "ansible/applier",
    "ansible/playbooks/deploy.yml",
    "ansible/plugins",
    "ansible/roles",
)
_ARTEFACT = ("client/src", "client/pyproject.toml", "requirements/client.txt", "tools/artefact")
_LEFT_OUT = frozenset({"__pycache__", ".mypy_cache", ".ruff_cache"})


@cache
def role_variables() -> Mapping[str, Mapping[str, Any]]:
    """The role's variables with their declared types (`meta/argument_specs.yml`)."""
    specs = _read_yaml(ROLE / "meta" / "argument_specs.yml")
    options: Mapping[str, Mapping[str, Any]] = specs["argument_specs"]["main"]["options"]
    return options


@cache
def role_defaults() -> Mapping[str, Any]:
    """The role's default values (`defaults/main.yml`), Jinja expressions in them unrendered."""
    defaults: Mapping[str, Any] = _read_yaml(ROLE / "defaults" / "main.yml")
    return defaults


def listed_models() -> tuple[str, ...]:
    """Models that have a list price."""
    return tuple(role_defaults().get("ai_model_costs") or ())


@cache
def deploy_digest() -> str:
    """SHA-256 of everything in the project that can change what a deploy does to a host."""
    return _digest(_DEPLOYED + _ARTEFACT)


def _digest(paths: Iterable[str]) -> str:
    total = hashlib.sha256()
    for path in sorted(_files(paths)):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(PROJECT).as_posix()} {content}\n".encode())
    return total.hexdigest()


def _files(paths: Iterable[str]) -> Iterable[Path]:
    for name in paths:
        path = PROJECT / name
        if path.is_file():
            yield path
        elif path.is_dir():
            yield from (file for file in path.rglob("*") if file.is_file() and _is_source(file))
        else:
            raise ContentError(name, "is not in this checkout", "restore it with git")


def _is_source(file: Path) -> bool:
    inside = file.relative_to(PROJECT).parts
    return not any(part in _LEFT_OUT or part.endswith((".egg-info", ".pyc")) for part in inside)


def _read_yaml(path: Path) -> Any:
    name = path.relative_to(PROJECT).as_posix()
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ContentError(name, error.strerror or "cannot be read", "restore it with git") from error
    except yaml.YAMLError as error:
        raise ContentError(name, "is not YAML", "restore it with git") from error
