"""`local.Command` as this program uses it: portable inputs, secrets on standard input, a re-run on drift alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pulumi
from pulumi_command import local

# What a child may inherit where it is set: the shell expands the names, so no value is in state.
_INHERITED = (
    "PATH",
    "HOME",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_STATE_HOME",
    "SSH_AUTH_SOCK",
    "CI",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
)
_CLEAN = " ".join(f'${{{name}+{name}="${name}"}}' for name in _INHERITED)

NOTHING = "exit 0"
_NONCE_LENGTH = 16


# AWS's variables, some of them secret, come through an open file: as arguments of `env` other users would see them.
_AWS_DESCRIPTOR = "3"
_AWS = f"{_AWS_DESCRIPTOR}<<AWS\n$(env | grep '^AWS_')\nAWS"


def child(module: str, *words: str) -> str:
    """A shell line that becomes a Python module of this project, with a clean environment.

    `exec`, since cancel and timeout end the shell's process alone; `env -i`, since a child would inherit everything.
    """
    return " ".join([f"exec env -i {_CLEAN} LANG=C.UTF-8 .venv/bin/python -m", module, *words])


def child_with_aws(module: str) -> str:
    """A shell line as `child` gives it, whose module gets the number of the open file that holds AWS's variables."""
    return f"{child(module, _AWS_DESCRIPTOR)} {_AWS}"


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
    facts: Mapping[str, pulumi.Input[str]] | None = None,
    drifted: bool | None = None,
    last_nonce: str = "",
    depends_on: list[pulumi.Resource] | None = None,
    timeout_s: int = 1800,
) -> local.Command:
    """A command resource that runs again where an input changed or `drifted` says so, and never replaces.

    Args:
        name: name of the resource.
        create: shell line of the first run.
        stdin: JSON that the child reads; mark it secret where it holds a secret.
        parent: component that it belongs to.
        update: shell line of later runs; `create` where not given.
        delete: shell line that undoes it.
        facts: what a reader of the preview should see change; the child does not get them.
        drifted: whether a probe found that the real thing differs from its state; None where nothing is probed.
        last_nonce: what the resource last ran under by the stack's state.
        depends_on: resources that come before it.
        timeout_s: longest run.
    """
    timeout = f"{timeout_s}s"
    nonce = {} if drifted is None else {"NONCE": _next_nonce(name, last_nonce)}
    return local.Command(
        name,
        create=create,
        update=update or create,
        delete=delete,
        stdin=stdin,
        environment={**(facts or {}), **nonce},
        # The default logging hangs the engine on a line over 64 KiB; errors still show the output.
        logging=local.Logging.NONE,
        add_previous_output_in_env=False,
        opts=pulumi.ResourceOptions(
            parent=parent,
            depends_on=depends_on,
            # A new nonce counts only where there is drift to mend.
            ignore_changes=["environment.NONCE"] if drifted is False else [],
            custom_timeouts=pulumi.CustomTimeouts(create=timeout, update=timeout, delete=timeout),
        ),
    )
