"""Releases that hosts are pinned to by `ai_client_digest`: which ones, and where this machine has them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from infra.errors import PlaybookError, SettingsError
from infra.project_files import PROJECT

if TYPE_CHECKING:  # a run needs this module and no settings
    from infra.config.schema import FleetSettings

PIN = "ai_client_digest"
PYTHON = "ai_python"
_FINDER = "tools/artefact/releases"


def check(settings: FleetSettings) -> None:
    """Refuses where a release that hosts are pinned to is not on this machine.

    Raises:
        SettingsError: names the key that pins it.
    """
    for key, pin in _pins(settings):
        if _find(pin) is None:
            raise SettingsError(
                f"{key}.{PIN}",
                f"no build on this machine has the digest {pin}",
                f"'{_FINDER}' lists what can be pinned; build an older release from its commit: 'git worktree add"
                " ../release COMMIT', then 'tools/setup control' and 'tools/artefact/build' there",
            )


def _pins(settings: FleetSettings) -> Iterator[tuple[str, str]]:
    """Every pin, with the configuration key of the variables that it is among."""
    scopes: list[tuple[str, Mapping[str, Any]]] = [("fleet:vars", settings.vars)]
    for name, group in settings.groups.items():
        scopes.append((f"fleet:groups.{name}.vars", group.vars))
        scopes += [(f"fleet:groups.{name}.hosts.{host}.vars", own.vars) for host, own in group.hosts.items()]
    for key, variables in scopes:
        if pin := str(variables.get(PIN) or ""):
            yield key, pin


def in_inventory(inventory: Mapping[str, Any]) -> frozenset[str]:
    """Digests that an inventory's hosts and groups are pinned to."""
    return _values(inventory, PIN)


def wants_own_python(inventory: Mapping[str, Any]) -> bool:
    """Whether hosts may run the artefact's own interpreter: `ai_python` says so, the role's default does not."""
    return not _values(inventory, PYTHON).isdisjoint({"own", "auto"})


def _values(inventory: Mapping[str, Any], name: str) -> frozenset[str]:
    """Everything that an inventory's hosts and groups set a variable to."""
    found: set[str] = set()
    todo: list[Any] = [inventory]
    while todo:
        entry = todo.pop()
        if isinstance(entry, Mapping):
            found |= {str(entry[name])} if entry.get(name) else set()
            todo += entry.values()
    return frozenset(found)


def folder_expression(current: str, pins: Iterable[str]) -> str:
    """The folder that a host installs from, as Ansible finds it for each: its pin's, else that of this checkout.

    Raises:
        PlaybookError: a pinned release is not on this machine.
    """
    folders = {pin: _find(pin) for pin in sorted(pins)}
    for pin, folder in folders.items():
        if folder is None:
            raise PlaybookError(PIN, f"no build on this machine has the digest {pin}", "build it here first")
    if not folders:
        return current
    return f"{{{{ {folders!r}[{PIN} | default('')] | default({current!r}) }}}}"


def _find(pin: str) -> str | None:
    """The folder of a pinned release; None where this machine has none."""
    argv = [str(PROJECT / _FINDER), "--", pin]
    asked = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
    return asked.stdout.strip() if asked.returncode == 0 else None
