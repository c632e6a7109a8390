"""Several upstreams behind the real service: who is asked, by which name and key, and who takes over."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest

from ai_client.testing import Fault, Simulator, SimulatorOptions
from tests.client.service_rig import TEST_KEY, TOKEN, Rig, running_service

MESSAGES = [{"role": "user", "content": "hello world"}]
OTHER_KEY = "another-providers-form/of+key=="


@dataclass
class Fleet:
    """A service, its default provider, and another."""

    rig: Rig
    first: Simulator
    second: Simulator
    key_file: Path

    async def chat(self, model: str, **more: Any) -> httpx.Response:
        """One question."""
        async with self.rig.tcp_client() as client:
            body = {"model": model, "messages": MESSAGES, "max_tokens": 2} | more
            return await client.post("/v1/chat/completions", json=body)


@asynccontextmanager
async def fleet(folder: Path, *, section: str = "", extra: str = "") -> AsyncIterator[Fleet]:
    """Both providers run; `section` has keys of `[upstream second]`, `extra` other sections."""
    key_file = folder / "second.key"
    key_file.write_text(OTHER_KEY + "\n")
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(Simulator(SimulatorOptions(keys=frozenset({TEST_KEY}))))
        chosen = SimulatorOptions(
            key_prefix="",
            keys=frozenset({OTHER_KEY}),
            models=("vendor/gpt-4.1", "gpt-4.1", "claude-sonnet-4.5"),
        )
        second = await stack.enter_async_context(Simulator(chosen))
        text = f"[upstream second]\nbase_url = {second.base_url}\nkey_file = {key_file}\n{section}\n{extra}"
        rig = await stack.enter_async_context(
            running_service(folder, first, extra=f"rate_limit = 60000\n{text}")
        )
        yield Fleet(rig, first, second, key_file)


async def test_a_model_of_an_upstream_by_name(tmp_path: Path) -> None:
    """`second/MODEL` goes to that upstream, signed by its key, under its own name there, at its own price."""
    section = "models = gpt-4.1=vendor/gpt-4.1"
    costs = "[model_costs]\nsecond/gpt-4.1 = 100"
    async with fleet(tmp_path, section=section, extra=costs) as run:
        plain, named = await run.chat("gpt-4.1"), await run.chat("second/gpt-4.1", temperature=0.5)
        assert [each.status_code for each in (plain, named)] == [200, 200]
        assert [each.headers["x-ai-model"] for each in (plain, named)] == ["gpt-4.1", "second/gpt-4.1"]
        assert [arrival.model for arrival in run.first.arrivals] == ["gpt-4.1"]
        assert [arrival.model for arrival in run.second.arrivals] == ["vendor/gpt-4.1"]
        fingerprint = hashlib.sha256(OTHER_KEY.encode()).hexdigest()[:12]
        assert set(run.second.counts.by_key) == {fingerprint}
        assert float(named.headers["x-ai-cost-usd"]) == pytest.approx(5 * 100e-6)


async def test_the_chain_goes_over_upstreams(tmp_path: Path) -> None:
    """Where the default upstream fails, the chain's next is another upstream's model."""
    async with fleet(tmp_path, extra="[models]\nfallback_chain = second/gpt-4.1") as run:
        run.first.faults.add(Fault("status", 503), count=9)
        answer = await run.chat("gpt-4.1")
        assert (answer.status_code, answer.headers["x-ai-model"]) == (200, "second/gpt-4.1")


async def test_order_and_failure(tmp_path: Path) -> None:
    """Who has the lower order is asked first; who comes after takes over where that one fails."""
    async with fleet(tmp_path, section="models = gpt-4.1\norder = 0\nweight = 1000000") as run:
        for number in range(5):
            assert (await run.chat("gpt-4.1", seed=number)).headers["x-ai-model"] == "second/gpt-4.1"
        run.second.faults.add(Fault("status", 503), count=9)
        assert (await run.chat("gpt-4.1", seed=9)).headers["x-ai-model"] == "gpt-4.1"


async def test_an_undeclared_model_is_the_default_upstreams(tmp_path: Path) -> None:
    """The others are asked for what they declare alone, and for what is named with their name."""
    async with fleet(tmp_path, section="models = gpt-4.1\norder = 0") as run:
        assert (await run.chat("deepseek-v3.2")).headers["x-ai-model"] == "deepseek-v3.2"
        missing = await run.chat("third/gpt-4.1")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


async def test_each_key_rotates(tmp_path: Path) -> None:
    """A new key in an upstream's file is taken at a reload, and where the old one is refused."""
    async with fleet(tmp_path) as run:
        assert (await run.chat("second/gpt-4.1")).status_code == 200
        run.second.accepted_keys = {"a-new-key-of-the-second"}
        run.key_file.write_text("a-new-key-of-the-second\n")
        assert (await run.chat("second/gpt-4.1", seed=1)).status_code == 200
        assert (await run.chat("gpt-4.1")).status_code == 200


async def test_a_missing_key_is_told_with_its_section(tmp_path: Path) -> None:
    """A reload without it changes nothing."""
    async with fleet(tmp_path) as run:
        run.key_file.unlink()
        async with run.rig.client() as client:
            told = (await client.post("/control/reload")).json()
        assert "[upstream second]" in told["error"]
        assert "AI_CLIENT_API_KEY_SECOND" in told["error"]
        assert (await run.chat("second/gpt-4.1")).status_code == 200


async def test_a_stored_response_is_found_where_it_was_made(tmp_path: Path) -> None:
    """On the upstream and by the key that made it, after a restart too."""
    async with fleet(tmp_path) as run:
        async with run.rig.tcp_client() as client:
            made = await client.post("/v1/responses", json={"model": "second/gpt-4.1", "input": "hello"})
            path = f"/v1/responses/{made.json()['id']}"
            assert (await client.get(path)).status_code == 200
            body = {"model": "second/gpt-4.1", "input": "more", "previous_response_id": made.json()["id"]}
            assert (await client.post("/v1/responses", json=body)).status_code == 200
        assert run.first.counts.arrivals == 0
        await run.rig.stop()
        config = run.rig.config.read_text()
        second_start = config[config.index("[performance]\n") + len("[performance]\n") :]
        async with (
            running_service(tmp_path, run.first, extra=second_start) as again,
            again.tcp_client() as client,
        ):
            assert (await client.get(path)).status_code == 200
            assert (await client.delete(path)).status_code == 200
            assert (await client.get(path)).status_code == 404


async def test_anthropics_dialect(tmp_path: Path) -> None:
    """`x-api-key` and a version go up, Anthropic's own headers pass, and its SDK reads what comes back."""
    async with fleet(tmp_path, section="dialect = anthropic") as run:
        url = f"http://127.0.0.1:{run.rig.port}"
        async with anthropic.AsyncAnthropic(base_url=url, api_key=TOKEN) as claude:
            await claude.messages.create(
                model="second/claude-sonnet-4.5",
                max_tokens=4,
                messages=MESSAGES,
                extra_headers={"anthropic-beta": "b-1"},
            )
        seen = run.second.last_headers
        assert (seen["x-api-key"], seen["anthropic-beta"]) == (OTHER_KEY, "b-1")
        assert "authorization" not in seen
        async with run.rig.tcp_client() as client:
            body = {"model": "second/claude-sonnet-4.5", "input": "hello"}
            refused = await client.post("/v1/responses", json=body)
        assert refused.status_code == 400
        assert "does not speak /v1/responses" in refused.json()["error"]["message"]


async def test_azures_dialect(tmp_path: Path) -> None:
    """`api-key` signs, and no bearer token goes up."""
    async with fleet(tmp_path, section="dialect = azure\nmodels = gpt-4.1=vendor/gpt-4.1") as run:
        assert (await run.chat("second/gpt-4.1")).status_code == 200
        assert run.second.last_headers["api-key"] == OTHER_KEY
        assert "authorization" not in run.second.last_headers


async def test_an_upstream_that_takes_no_key(tmp_path: Path) -> None:
    """A server of one's own is asked without any."""
    async with fleet(tmp_path, section="needs_key = false") as run:
        run.second.accepted_keys = set()
        assert (await run.chat("second/gpt-4.1")).status_code == 200
        assert "authorization" not in run.second.last_headers


async def test_a_models_own_limit_holds_up_that_model_alone(tmp_path: Path) -> None:
    """The third request of a minute waits, up to its deadline; another model's and another upstream's go at once."""
    limit = "[limit gpt-4.1]\nrequests_per_minute = 2"
    async with fleet(tmp_path, extra=limit) as run:
        for number in range(2):
            assert (await run.chat("gpt-4.1", seed=number)).status_code == 200
        async with run.rig.tcp_client() as client:
            body = {"model": "gpt-4.1", "messages": MESSAGES, "seed": 3}
            waited = await client.post("/v1/chat/completions", json=body, headers={"x-ai-deadline": "0.5"})
        assert (waited.status_code, waited.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert (await run.chat("deepseek-v3.2")).status_code == 200
        assert (await run.chat("second/gpt-4.1")).status_code == 200
        assert [arrival.model for arrival in run.first.arrivals].count("gpt-4.1") == 2


async def test_each_upstream_says_how_it_stands(tmp_path: Path) -> None:
    """Health, status page and `config check`: who answers, whose model is left alone, which key signs."""
    async with fleet(tmp_path, extra="[models]\nfallback =\n") as run:
        fingerprint = hashlib.sha256(OTHER_KEY.encode()).hexdigest()[:12]
        assert (await run.chat("second/gpt-4.1")).status_code == 200
        status = await state_of(run)
        assert [each["name"] for each in status] == ["default", "second"]
        assert (status[0]["ok"], status[1]["ok"]) == (None, True)
        assert status[1]["key"] == fingerprint
        assert status[1]["host"] in run.second.base_url
        run.second.faults.add(Fault("status", 429, retry_after="3600"))
        assert (await run.chat("second/claude-sonnet-4.5")).status_code == 429
        parked = (await state_of(run))[1]["parked"]
        assert [each["model"] for each in parked] == ["second/claude-sonnet-4.5"]
        assert 3500 < parked[0]["for_s"] <= 3600
        run.second.faults.add(Fault("status", 503), count=9)
        assert (await run.chat("second/gpt-4.1", seed=1)).status_code == 502
        told = await run.rig.command("--health-check")
        assert told.code == 0, "others may answer in its place"
        assert "down upstream second" in told.out
        assert "second/claude-sonnet-4.5 is left alone for" in told.out
        assert (await run.rig.command("config", "check")).out.splitlines()[1:] == [
            f"upstream second ({status[1]['host']}, compatible, any model): key {fingerprint}"
        ]


async def state_of(run: Fleet) -> list[dict[str, Any]]:
    """As the status page has it."""
    async with run.rig.client() as client:
        found: list[dict[str, Any]] = (await client.get("/status.json")).json()["upstreams"]
        return found
