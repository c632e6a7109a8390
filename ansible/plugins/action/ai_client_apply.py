"""Sends a host its whole desired state in one program run, and tells Ansible what came of it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible.plugins.action import ActionBase

_ANSIBLE = Path(__file__).resolve().parents[2]
_ROLE = _ANSIBLE / "roles" / "ai_client"
sys.path.append(str(_ANSIBLE / "applier"))

from ai_client_delivery import exchange, order, results, variables, wire  # noqa: E402
from ai_client_delivery.errors import DeliveryError  # noqa: E402
from ai_client_delivery.rendering import load_templates  # noqa: E402

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
            made = order.make_order(
                mode=mode,
                parts=parts,
                check=bool(self._task.check_mode),
                values=self._values(_ENTRY_POINTS[mode], variables_of_host),
                secrets=self._secrets(variables_of_host) if "secrets" in parts else {},
                templates=_TEMPLATES,
            )
            answer = exchange.run(made, program=_PROGRAM, send=self._sender(variables_of_host))
        except DeliveryError as error:
            raise AnsibleActionFail(str(error)) from None
        return result | results.from_answer(answer, diff=bool(self._task.diff))

    def _arguments(self) -> tuple[str, frozenset[str]]:
        _, arguments = self.validate_argument_spec(
            {
                "mode": {"type": "str", "default": "apply", "choices": list(order.MODES)},
                "parts": {"type": "list", "elements": "str", "default": [], "choices": list(order.PARTS)},
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

    def _sender(self, task_vars: Mapping[str, Any]) -> Callable[[bytes], tuple[int, str, str]]:
        command = shlex.join(wire.command(self._python(task_vars)))
        # Named, or Ansible appends a command of its own that mends a race of terminals; there is none here.
        shell = self._play_context.executable or "/bin/sh"

        def send(stdin: bytes) -> tuple[int, str, str]:
            done = self._low_level_execute_command(command, in_data=stdin, executable=shell)
            return done["rc"], done["stdout"], done["stderr"]

        return send

    def _python(self, task_vars: Mapping[str, Any]) -> str:
        """The host's interpreter; those that Ansible would have to look for are the system's."""
        python = str(self._templar.template(task_vars.get("ansible_python_interpreter")) or "")
        return python if python.startswith("/") else "/usr/bin/python3"
