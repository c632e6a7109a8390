"""A stack that shares its quota: what the program declares, and what a preview says of the move."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from tests.infra.stacks import HOST_KEY, KEY
from tests.program.stand import Declared, as_state, run

PASSWORD, OTHER = "s3cr3t-of-the-engine", "s3cr3t-that-follows"
ENGINE = "rediss://engine.internal:6379"


def config(*, coordination: dict[str, Any] | None) -> dict[str, Any]:
    hosts = {f"web-{n}": {"address": f"10.0.0.{n}", "hostKeys": [HOST_KEY]} for n in (1, 2)}
    content: dict[str, Any] = {
        "environment": "production",
        "apiKey": KEY,
        "probe": False,
        "account": {"rpm": 600},
        "groups": {"web": {"hosts": hosts, "share": 1}},
    }
    return content if coordination is None else content | {"coordination": coordination}


def shared(password: str = PASSWORD) -> dict[str, Any]:
    return config(coordination={"endpoint": ENGINE, "user": "fleet", "password": password})


def declared(content: dict[str, Any], *, preview: bool = False, **more: Any) -> Declared:
    secret = ("apiKey", "coordination") if "coordination" in content else ("apiKey",)
    return run(content, name="shared", preview=preview, secret=secret, **more)


def test_the_password_is_in_secret_inputs_alone_and_its_change_is_seen() -> None:
    """As the upstream key: a rotation changes one input of each run, and nothing else."""
    first, second = declared(shared()), declared(shared(OTHER))
    wave = next(name for name, made in first.commands.items() if "GROUP" in made.get("environment", {}))
    before, after = (made.commands[wave]["environment"] for made in (first, second))
    assert {name for name in after if after[name] != before[name]} - {"NONCE"} == {"SECRETS"}
    assert PASSWORD in first.commands[wave]["stdin"]["secret"]
    for inputs in first.commands.values():
        inputs.pop("stdin")
    assert "s3cr3t" not in json.dumps(first.commands) + json.dumps(first.outputs) + str(first.warnings)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (config(coordination=None), shared(), "moves from fixed shares to one shared through"),
        (
            shared(),
            config(coordination=None),
            "moves back to fixed shares; for three minutes",
        ),
    ],
    ids=["to shared", "to fixed"],
)
def test_a_preview_says_that_the_quota_moves(
    before: dict[str, Any], after: dict[str, Any], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    state = as_state(declared(before))
    with caplog.at_level(logging.INFO, logger="program-under-test"):
        declared(after, preview=True, state=state)
    assert f"web-1, web-2: quota {told}" in caplog.text


def test_a_preview_says_nothing_where_it_stays(caplog: pytest.LogCaptureFixture) -> None:
    state = as_state(declared(shared()))
    with caplog.at_level(logging.INFO, logger="program-under-test"):
        declared(shared(), preview=True, state=state)
    assert "quota moves" not in caplog.text
