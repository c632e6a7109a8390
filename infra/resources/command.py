"""`local.Command` as this program uses it: portable inputs, secrets on standard input, a re-run on drift alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pulumi
from pulumi_command import local

from infra.playbook.environment import INHERITED, LOCALE, PROXIES

# The shell expands the names, so no value is in state.
_CLEAN = " ".join(f'${{{name}+{name}="${name}"}}' for name in INHERITED)
_PROXIES = "|".join(f"{name}=" for name in PROXIES)
_AWS = "AWS_"

NOTHING = "exit 0"
_NONCE_LENGTH = 16


def child(module: str, *words: str) -> str:
    """A shell line that becomes a Python module of this project, with a clean environment.

    `exec`, since cancel and timeout end the shell's process alone; `env -i`, since a child would inherit everything.
    """
    return _child(_PROXIES, module, *words)


def child_with_aws(module: str) -> str:
    """A shell line as `child` gives it, whose module has AWS's variables too."""
    return _child(f"{_PROXIES}|{_AWS}", module)


def _child(passed: str, module: str, *words: str) -> str:
    """The line. What may be secret comes through an open file: as arguments of `env` other users would see it."""
    program = " ".join(["exec .venv/bin/python -m", module, *words])
    given = 'while IFS= read -r given <&3; do case $given in *=*) export "$given";; esac; done'
    clean = f"exec env -i {_CLEAN} LANG={LOCALE} /bin/sh -c '{given}; exec 3<&-; {program}'"
    return f"{clean} 3<<GIVEN\n$(env | grep -E '^({passed})')\nGIVEN"


def _next_nonce(name: str, last: str) -> str:
    """Another nonce than the last one. No random one: `up` would not be what a saved plan of a preview foretold."""
    return hashlib.sha256(f"{name} {last}".encode()).hexdigest()[:_NONCE_LENGTH]


def command(
    name: str,
    *,
    create: str,
    stdin: pulumi.Input[str],
    parent: pulumi.Resource,
    update: str | None = None,
    delete: str | None = None,
    visible_inputs: Mapping[str, pulumi.Input[str]] | None = None,
    drifted: bool | None = None,
    last_nonce: str = "",
    depends_on: list[pulumi.Resource] | None = None,
    timeout_s: int = 1800,
    folder: str = "",
) -> local.Command:
    """A command resource that runs again where an input changed or `drifted` says so, and never replaces.

    Args:
        name: name of the resource.
        create: shell line of the first run.
        stdin: JSON that the child reads; mark it secret where it holds a secret.
        parent: component that it belongs to.
        update: shell line of later runs; `create` where not given.
        delete: shell line that undoes it.
        visible_inputs: what a reader of the preview should see change; the child does not get them.
        drifted: whether a probe found that the real thing differs from its state; None where nothing is probed.
        last_nonce: what the resource last ran under by the stack's state.
        depends_on: resources that come before it.
        timeout_s: longest run.
        folder: this project's folder below that of the Pulumi program; "" where it is the same.
    """
    nonce = {} if drifted is None else {"NONCE": _next_nonce(name, last_nonce)}
    return local.Command(
        name,
        create=create,
        update=update or create,
        delete=delete,
        stdin=stdin,
        dir=folder or None,
        environment={**(visible_inputs or {}), **nonce},
        # The default logging hangs the engine on a line over 64 KiB; errors still show the output.
        logging=local.Logging.NONE,
        add_previous_output_in_env=False,
        opts=pulumi.ResourceOptions(
            parent=parent,
            depends_on=depends_on,
            # A new nonce counts only where there is drift to mend.
            ignore_changes=["environment.NONCE"] if drifted is False else [],
            custom_timeouts=_timeouts(f"{timeout_s}s"),
        ),
    )


def _timeouts(longest: str) -> pulumi.CustomTimeouts:
    return pulumi.CustomTimeouts(create=longest, update=longest, delete=longest)
