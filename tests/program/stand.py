"""Runs the program under Pulumi's mocks and records what it declares."""

import asyncio
import json
import logging
import runpy
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi.runtime import config as pulumi_config
from pulumi.runtime import mocks, rpc
from pulumi.runtime.stack import run_pulumi_func
from pulumi.runtime.sync_await import _sync_await

from tests.infra.stacks import PROJECT


@dataclass
class Declared:
    """What one run declared.

    Attributes:
        commands: inputs of each command resource, by name; a secret is {"secret": value}.
        outputs: the stack's outputs, secrets likewise.
        warnings: warnings and errors that a user sees.
    """

    commands: dict[str, dict[str, Any]] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


class _Recorder(mocks.Mocks):
    def __init__(self, declared: Declared) -> None:
        self._declared = declared

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        if args.typ == "command:local:Command":
            self._declared.commands[args.name] = {k: _revealed(v) for k, v in args.inputs.items()}
        return f"{args.name}-id", {**args.inputs, "stdout": "", "stderr": ""}

    def call(self, args: mocks.MockCallArgs) -> dict[str, Any]:
        return {}


def _revealed(value: Any) -> Any:
    """Marks a secret as {"secret": value}."""
    if isinstance(value, dict) and value.get(rpc._special_sig_key) == rpc._special_secret_sig:
        return {"secret": value["value"]}
    return value


def run(
    config: dict[str, Any], *, name: str, preview: bool, secret: tuple[str, ...] = ("apiKey",)
) -> Declared:
    """The program's declarations for a configuration.

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
            _Recorder(declared), project="fleet", stack=name, preview=preview, logger=log
        )
        values = {f"fleet:{k}": v if isinstance(v, str) else json.dumps(v) for k, v in config.items()}
        pulumi_config.set_all_config(values, [f"fleet:{key}" for key in secret])
        _sync_await(run_pulumi_func(lambda: _main(declared)))
    finally:
        log.removeHandler(handler)
        asyncio.set_event_loop(None)
        loop.close()
    return declared


def _main(declared: Declared) -> None:
    runpy.run_path(str(PROJECT / "__main__.py"), run_name="__main__")
    root = pulumi.runtime.get_root_resource()
    for key, value in root.outputs.items():
        pulumi.Output.from_input(value).apply(lambda known, key=key: declared.outputs.__setitem__(key, known))


class _Warnings(logging.Handler):
    def __init__(self, declared: Declared) -> None:
        super().__init__(logging.WARNING)
        self._declared = declared

    def emit(self, record: logging.LogRecord) -> None:
        self._declared.warnings.append(record.getMessage())
