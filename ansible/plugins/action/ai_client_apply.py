"""Sends a host its whole desired state in one program run, and tells Ansible what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.ai_client.fleet.applier.on_controller import (
    delivery,
    results,
    round_trips,
    variables,
    wire,
)
from ansible_collections.ai_client.fleet.applier.on_controller.errors import DeliveryError
from ansible_collections.ai_client.fleet.applier.on_controller.rendering import load_templates

from ansible.plugins.action import ActionBase

_ROLE = Path(__file__).resolve().parents[2] / "roles" / "ai_client"

# Read once, in the process that all hosts' workers are forked from.
_OPTIONS = variables.load_options(_ROLE)
_TEMPLATES = load_templates(_ROLE / "templates")
_PROGRAM = wire.program_text()
_ENTRY_POINTS = {"apply": "main", "rollback": "rollback", "decommission": "decommission"}


class ActionModule(ActionBase):
    """The task `ai_client_apply`. Its arguments and its result hold no secret: it reads the keys by itself."""

    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset({"mode", "parts"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Runs the applier on the task's host."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables_of_host = task_vars or {}
        mode, parts = self._arguments()
        try:
            made = delivery.make_delivery(
                mode=mode,
                parts=parts,
                check=bool(self._task.check_mode),
                values=self._values(_ENTRY_POINTS[mode], variables_of_host),
                secrets=self._secrets(variables_of_host) if "secrets" in parts else {},
                templates=_TEMPLATES,
            )
            start = self._start(variables_of_host)
            answer = round_trips.run(made, program=_PROGRAM, send=self._send, start=start)
        except DeliveryError as error:
            raise AnsibleActionFail(str(error)) from None
        return result | results.from_answer(answer, diff=bool(self._task.diff))

    def _arguments(self) -> tuple[str, frozenset[str]]:
        _, arguments = self.validate_argument_spec(
            {
                "mode": {"type": "str", "default": "apply", "choices": list(delivery.MODES)},
                "parts": {"type": "list", "elements": "str", "default": [], "choices": list(delivery.PARTS)},
            }
        )
        if arguments["mode"] == "apply" and not arguments["parts"]:
            raise AnsibleActionFail("parts is empty; name at least one of deploy, config, secrets, verify")
        return arguments["mode"], frozenset(arguments["parts"])

    def _values(self, entry_point: str, task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """The role's variables that are not secret, checked and converted as its argument_specs say."""
        options = {name: spec for name, spec in _OPTIONS[entry_point].items() if not spec.get("no_log")}
        for warning in variables.unknown_names(
            (name for name in task_vars if name.startswith("ai_")), _OPTIONS["main"]
        ):
            self._display.warning(warning)
        given = {name: task_vars[name] for name in options if name in task_vars}
        checked = ArgumentSpecValidator(options).validate(self._templar.template(given))
        if checked.error_messages:
            raise AnsibleActionFail("; ".join(checked.error_messages))
        validated: dict[str, Any] = checked.validated_parameters
        return validated

    def _secrets(self, task_vars: Mapping[str, Any]) -> dict[str, Any]:
        secrets: dict[str, Any] = self._templar.template(
            {name: task_vars[name] for name in variables.SECRETS if name in task_vars}
        )
        return secrets

    def _send(self, command: str, stdin: bytes) -> tuple[int, str, str]:
        # Named, or Ansible appends a command of its own that mends a race of terminals; there is none here.
        shell = self._play_context.executable or "/bin/sh"
        done = self._low_level_execute_command(command, in_data=stdin, executable=shell)
        return done["rc"], done["stdout"], done["stderr"]

    def _start(self, task_vars: Mapping[str, Any]) -> str:
        """By the interpreter that the inventory names; without one, and for modes of looking, by the first there is."""
        python = str(self._templar.template(task_vars.get("ansible_python_interpreter")) or "")
        return wire.start(python) if python.startswith("/") else wire.find_and_start()
