"""`ai-client usage` and `ai-client audit verify` after real traffic."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ai_client.testing import Simulator
from tests.client.service_rig import TEST_KEY, Rig, running_service

pytestmark = pytest.mark.slow

CHAT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "a secret text"}], "max_tokens": 3}


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A service that has answered two models' requests of two tenants, one of them from the cache, one in vain."""
    async with Simulator() as simulator, running_service(tmp_path, simulator) as running:
        async with running.client() as unix, running.tcp_client() as tcp:
            await unix.post("/v1/chat/completions", json=CHAT)
            await unix.post("/v1/chat/completions", json=CHAT)
            await tcp.post("/v1/chat/completions", json=CHAT | {"model": "deepseek-v3.2"})
            await tcp.post("/v1/chat/completions", json=CHAT | {"model": "none"})
        yield running


async def test_usage_sums_by_model_and_tenant(rig: Rig) -> None:
    """As the provider counted, at list prices."""
    report = (await rig.command("usage", "--json", "--by", "model,tenant")).json()
    rows = {(row["model"], row["tenant"]): row for row in report["rows"]}
    assert set(rows) == {("gpt-4.1", "uid-0"), ("deepseek-v3.2", "web")}
    assert rows["gpt-4.1", "uid-0"]["requests"] == 1
    assert rows["gpt-4.1", "uid-0"]["cost_usd"] == pytest.approx((4 + 3) * 8e-6)
    assert report["total"]["requests"] == 2


async def test_usage_is_a_table_for_people(rig: Rig) -> None:
    """With a sum."""
    done = await rig.command("usage", "--by", "day,model")
    lines = done.out.splitlines()
    assert "gpt-4.1" in done.out
    assert lines[1].split()[:4] == ["day", "model", "requests", "input"]
    assert lines[-1].startswith("total")


async def test_usage_names_what_it_can_group_by(rig: Rig) -> None:
    """And where no ledger is."""
    done = await rig.command("usage", "--by", "colour")
    assert (done.code, "can't group by 'colour'" in done.err) == (2, True)
    done = await rig.command("usage", "--ledger", "/nonexistent/ledger")
    assert (done.code, "name the file with --ledger" in done.err) == (1, True)


async def test_every_call_has_a_line_in_the_audit_trail_without_its_text(rig: Rig) -> None:
    """Who, model, tokens, cost, status, key fingerprint; neither text nor key."""
    await rig.stop()
    [path] = (rig.folder / "log").glob("audit-*")
    text = path.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    calls = [line for line in lines if line.get("endpoint") == "chat/completions"]
    assert len(calls) == 4
    assert {line["tenant"] for line in calls} == {"uid-0", "web"}
    assert "a secret text" not in text
    assert TEST_KEY not in text


async def test_a_changed_audit_line_is_found(rig: Rig) -> None:
    """Exit code 1, with file and line."""
    await rig.stop()
    assert (await rig.command("audit", "verify", "--json")).json()["ok"]
    [path] = (rig.folder / "log").glob("audit-*")
    path.write_text(path.read_text().replace("uid-0", "uid-1", 1))
    done = await rig.command("audit", "verify")
    assert done.code == 1
    assert f"{path.name}:" in done.err
    done = await rig.command("audit", "verify", "--folder", "/nonexistent")
    assert done.code in (0, 2)
