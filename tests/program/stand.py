"""Runs the program under Pulumi's mocks and records what it declares."""

import asyncio
import json
import logging
import runpy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi.runtime import config as pulumi_config
from pulumi.runtime import mocks, rpc
from pulumi.runtime.stack import run_pulumi_func
from pulumi.runtime.sync_await import _sync_await

from tests.infra.stacks import PROJECT

# The exit code of a program that has told what is wrong (`TOLD` in the project's `__main__.py`).
TOLD = 32


@dataclass
class Declared:
    """What one run declared.

    Attributes:
        commands: inputs of each command resource, by name; a secret is {"secret": value}.
        outputs: the stack's outputs, secrets likewise.
        warnings: warnings and errors that a user sees.
        urns: URN of every resource, and the URNs that it had before (its aliases).
    """

    commands: dict[str, dict[str, Any]] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    urns: dict[str, tuple[str, ...]] = field(default_factory=dict)


class _Recorder(mocks.Mocks):
    def __init__(self, declared: Declared, state: dict[str, Any]) -> None:
        self._declared = declared
        self._state = state

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        if args.typ == "command:local:Command":
            self._declared.commands[args.name] = {k: _revealed(v) for k, v in args.inputs.items()}
        return f"{args.name}-id", {**args.inputs, "stdout": "", "stderr": ""}

    def call(self, args: mocks.MockCallArgs) -> dict[str, Any]:
        return {"outputs": self._state} if args.token == _READ_STATE else {}


class _Monitor(mocks.MockMonitor):
    """Makes URNs as the engine does: with the types of all parents but the stack's own."""

    def __init__(self, declared: Declared, state: dict[str, Any]) -> None:
        super().__init__(_Recorder(declared, state))
        self._declared = declared

    def make_urn(self, parent: str, type_: str, name: str) -> str:
        above = parent.split("::")[2] if parent else ""
        qualified = f"{above}${type_}" if above and above != _STACK_TYPE else type_
        return "::".join([f"urn:pulumi:{pulumi.get_stack()}", pulumi.get_project(), qualified, name])

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802  (gRPC's name)
        answer = super().RegisterResource(request)
        if request.type != _STACK_TYPE:
            self._declared.urns[answer.urn] = tuple(_alias(self, request, alias) for alias in request.aliases)
        return answer


_READ_STATE = "pulumi:pulumi:readStackResourceOutputs"
_STACK_TYPE = "pulumi:pulumi:Stack"


def _alias(monitor: _Monitor, request: Any, alias: Any) -> str:
    if alias.WhichOneof("alias") == "urn":
        return str(alias.urn)
    spec = alias.spec
    parent = "" if spec.noParent else spec.parentUrn or request.parent
    return monitor.make_urn(parent, spec.type or request.type, spec.name or request.name)


def _revealed(value: Any) -> Any:
    """Marks a secret as {"secret": value}."""
    if isinstance(value, dict) and value.get(rpc._special_sig_key) == rpc._special_secret_sig:
        return {"secret": value["value"]}
    return value


def as_state(declared: Declared, results: dict[str, dict[str, Any]] | None = None) -> dict[str, Any]:
    """What a state holds after a run that declared this and went well.

    Args:
        declared: what the run declared.
        results: what hosts answered, by name; a host that is not in it answered nothing of note.
    """
    state: dict[str, Any] = {}
    for urn in declared.urns:
        inputs = declared.commands.get(urn.rsplit("::", 1)[-1])
        if inputs is not None:
            outputs = {key: value["secret"] if _is_secret(value) else value for key, value in inputs.items()}
            hosts = (outputs.get("environment") or {}).get("HOSTS", "")
            answers = {host: (results or {}).get(host, {}) for host in hosts.split(",")}
            outputs["stdout"] = json.dumps({"hosts": answers}) if hosts else ""
            state[urn] = {"type": "command:local:Command", "outputs": outputs}
    return state


def _is_secret(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"secret"}


def run(
    config: dict[str, Any],
    *,
    name: str,
    preview: bool,
    secret: tuple[str, ...] = ("apiKey",),
    state: dict[str, Any] | None = None,
    program: Callable[[], None] | None = None,
) -> Declared:
    """The declarations of a program, by default this project's, for a configuration, after the run that left `state`.

    Raises:
        pulumi.RunError: the program refused.
    """
    declared = Declared()
    log = logging.getLogger("program-under-test")
    handler = _Warnings(declared)
    log.addHandler(handler)
    # Pulumi takes the thread's event loop, and asyncio.run in an earlier test leaves the thread without one.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        pulumi.runtime.set_mocks(
            _Recorder(declared, state or {}),
            project="fleet",
            stack=name,
            preview=preview,
            logger=log,
            monitor=_Monitor(declared, state or {}),
        )
        values = {f"fleet:{k}": v if isinstance(v, str) else json.dumps(v) for k, v in config.items()}
        pulumi_config.set_all_config(values, [f"fleet:{key}" for key in secret])
        _sync_await(run_pulumi_func(lambda: _recorded(program or _main, declared)))
    finally:
        log.removeHandler(handler)
        asyncio.set_event_loop(None)
        loop.close()
    return declared


def _main() -> None:
    runpy.run_path(str(PROJECT / "__main__.py"), run_name="__main__")


def _recorded(program: Callable[[], None], declared: Declared) -> None:
    try:
        program()
    except SystemExit as ended:
        # The project's program has told what is wrong, and ends without the engine's second error.
        if ended.code != TOLD:
            raise
        raise pulumi.RunError(declared.warnings.pop()) from None
    root = pulumi.runtime.get_root_resource()
    for key, value in root.outputs.items():
        pulumi.Output.from_input(value).apply(lambda known, key=key: declared.outputs.__setitem__(key, known))


class _Warnings(logging.Handler):
    def __init__(self, declared: Declared) -> None:
        super().__init__(logging.WARNING)
        self._declared = declared

    def emit(self, record: logging.LogRecord) -> None:
        self._declared.warnings.append(record.getMessage())
