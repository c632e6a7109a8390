"""No test waits for the wall clock: it waits for a condition, looking again until a deadline."""

from __future__ import annotations

import ast
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
# What sleeps on a clock of its own, and what measures.
OTHERS = (
    *("tests/client/gateway/simulation", "tests/bench"),
    *("tests/client/coordination/batch_simulation.py", "tests/client/coordination/virtual_loop.py"),
)
# What plays something slow, or something that comes in a rhythm: the sleep is the point, and nothing waits by it.
PLAYED = {
    "tests/ansible/coordination_faults/upstream.py": "a provider that notes arrivals, and its own lateness",
    "tests/ansible/held_provider.py": "a provider that holds an answer back",
    "tests/client/calls/test_client_limits.py": "a network with delays, and a watch over the event loop",
    "tests/client/coordination/fleet.py": "a host that asks again and again",
    "tests/client/coordination/test_batch_service.py": "moments at which workers and commands are killed",
    "tests/client/coordination/test_budget_service.py": "moments at which services are killed",
    "tests/client/coordination/test_service.py": "an engine that answers slowly again and again",
    "tests/client/transport/test_conformance.py": "an upstream that sends slowly",
}


def sleeps(text: str) -> list[int]:
    """The lines of a module that sleep outside of a loop that looks for a condition. A sleep of 0 lets others run."""
    tree = ast.parse(text)
    polling = {
        inner
        for loop in ast.walk(tree)
        if isinstance(loop, ast.While) and _looks(loop)
        for inner in ast.walk(loop)
        if isinstance(inner, ast.Call)
    }
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node not in polling]
    return [
        call.lineno for call in calls if ast.unparse(call.func).endswith("sleep") and not _is_a_turn(call)
    ]


def _is_a_turn(call: ast.Call) -> bool:
    return bool(call.args) and isinstance(call.args[0], ast.Constant) and call.args[0].value == 0


def _looks(loop: ast.While) -> bool:
    """Whether it ends by something that it sees: its condition, or a way out within."""
    ways_out = (ast.Break, ast.Return, ast.Raise)
    return not isinstance(loop.test, ast.Constant) or any(
        isinstance(node, ways_out) for node in ast.walk(loop)
    )


def modules() -> dict[str, str]:
    """The tests by their paths."""
    found = {str(path.relative_to(PROJECT)): path for path in (PROJECT / "tests").rglob("*.py")}
    return {
        name: path.read_text(encoding="utf-8") for name, path in found.items() if not name.startswith(OTHERS)
    }


def test_no_test_sleeps() -> None:
    """But for what is played; who no longer plays is not listed."""
    found = {name for name, text in modules().items() if sleeps(text)}
    assert found == set(PLAYED)


def test_a_sleep_is_found() -> None:
    """Of either library, under any name of the module."""
    assert sleeps("import time\ntime.sleep(1)\nawait asyncio.sleep(x)\nsleep(0)\n") == [2, 3]
    assert sleeps("while not met():\n    time.sleep(0.1)\nwhile True:\n    sleep(1)\n") == [4]
