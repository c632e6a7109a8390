"""What the program refuses, in the real engine: said once, and nothing is touched."""

from __future__ import annotations

import json

import pytest

from tests.engine.conftest import CHECKOUT
from tests.engine.recorder import COMMAND_TYPE, Workspace

pytestmark = pytest.mark.engine

PROGRAM = f"""
import runpy
runpy.run_path({str(CHECKOUT / "__main__.py")!r}, run_name="__main__")
"""


def test_a_refusal_is_one_error_that_fails_the_run_and_removes_nothing(workspace: Workspace) -> None:
    """A misspelt required key is named beside the missing one; the engine adds no error of its own."""
    workspace.declare({"create": "true"})
    assert workspace.up().returncode == 0
    (workspace.folder / "__main__.py").write_text(PROGRAM)
    workspace.pulumi("config", "set", "fleet:enviroment", "shop").check_returncode()
    before = workspace.resources()
    done = workspace.up()
    assert done.returncode == 1
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    told = [event["diagnosticEvent"] for event in events if "diagnosticEvent" in event]
    [error] = [diagnostic["message"] for diagnostic in told if diagnostic["severity"] == "error"]
    assert "fleet:enviroment: unknown key; did you mean 'environment'?" in error
    assert "fleet:environment: is missing; set it" in error
    assert "unhandled error" not in done.stdout + done.stderr
    assert workspace.pulumi("preview").returncode == 1
    kinds = [resource["type"] for resource in workspace.resources()]
    assert kinds == [resource["type"] for resource in before]
    assert COMMAND_TYPE in kinds
