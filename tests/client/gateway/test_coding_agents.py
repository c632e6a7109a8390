"""The requests of Codex and of Claude Code, as they are on the wire, against the real service.

Shapes: openai/codex `codex-rs/core/src/client.rs` (a websocket first, then `POST /v1/responses` with `store: false` and
encrypted reasoning; `/v1/responses/compact`), and Claude Code's `POST /v1/messages?beta=true` with `anthropic-beta`,
`x-app` and `X-Stainless-*` headers, `system` as blocks with `cache_control`, and `count_tokens` before a long turn.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from ai_client.testing import Simulator
from tests.client.service_rig import TOKEN, Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHELL = {
    "type": "function",
    "name": "shell",
    "strict": False,
    "parameters": {
        "type": "object",
        "properties": {"command": {"type": "array", "items": {"type": "string"}}},
    },
}
CODEX: dict[str, Any] = {
    "model": "gpt-4.1",
    "instructions": "You are a coding agent.",
    "input": [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello world"}]}
    ],
    "tools": [SHELL, {"type": "web_search"}],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "session-1",
}
CODEX_HEADERS = {
    "originator": "codex_cli_rs",
    "session_id": "session-1",
    "OpenAI-Beta": "responses=experimental",
    "accept": "text/event-stream",
}
CLAUDE_CODE: dict[str, Any] = {
    "model": "claude-sonnet-4.5",
    "max_tokens": 32000,
    "system": [
        {"type": "text", "text": "You are Claude Code.", "cache_control": {"type": "ephemeral"}},
    ],
    "messages": [{"role": "user", "content": [{"type": "text", "text": "hello world"}]}],
    "tools": [
        {
            "name": "Bash",
            "description": "Runs a command.",
            "input_schema": {"type": "object", "properties": {}},
        }
    ],
    "thinking": {"type": "enabled", "budget_tokens": 31999},
    "metadata": {"user_id": "user_1_account__session_1"},
    "stream": True,
}
CLAUDE_HEADERS = {
    "authorization": f"Bearer {TOKEN}",
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14",
    "anthropic-dangerous-direct-browser-access": "true",
    "x-app": "cli",
    "x-stainless-lang": "js",
}


def events_of(body: str) -> list[dict[str, Any]]:
    """Those of a stream."""
    return [json.loads(line[5:]) for line in body.splitlines() if line.startswith("data:")]


async def test_codex_falls_back_to_http_and_gets_its_events(rig: Rig, provider: Simulator) -> None:
    """A websocket is answered with 426; the same over HTTP streams a tool call to its end, and the result goes on."""
    upgrade = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "eA==",
    }
    async with rig.tcp_client() as client:
        refused = await client.get("/v1/responses", headers=CODEX_HEADERS | upgrade)
        assert refused.status_code == 426
        answer = await client.post("/v1/responses", json=CODEX, headers=CODEX_HEADERS)
        events = events_of(answer.text)
        assert events[0]["type"] == "response.created"
        assert events[-1]["type"] == "response.completed"
        [call] = events[-1]["response"]["output"]
        assert call["name"] == "shell"
        assert provider.last_headers["openai-beta"] == "responses=experimental"
        result = {"type": "function_call_output", "call_id": call["call_id"], "output": "done"}
        following = CODEX | {"input": [*CODEX["input"], call, result]}
        told = events_of((await client.post("/v1/responses", json=following, headers=CODEX_HEADERS)).text)
        assert told[-1]["response"]["output"][0]["type"] == "message"
        compact = {"model": "gpt-4.1", "input": CODEX["input"], "instructions": CODEX["instructions"]}
        compacted = await client.post("/v1/responses/compact", json=compact, headers=CODEX_HEADERS)
        assert compacted.json()["object"] == "response.compaction"


async def test_claude_code(rig: Rig, provider: Simulator) -> None:
    """It streams with its query and headers passed on, counts tokens, and gets a tool's use."""
    async with rig.tcp_client(token=None) as client:
        answer = await client.post("/v1/messages?beta=true", json=CLAUDE_CODE, headers=CLAUDE_HEADERS)
        events = events_of(answer.text)
        assert [events[0]["type"], events[-1]["type"]] == ["message_start", "message_stop"]
        assert provider.last_headers["anthropic-beta"] == CLAUDE_HEADERS["anthropic-beta"]
        assert "x-app" not in provider.last_headers
        counting = {key: CLAUDE_CODE[key] for key in ("model", "system", "messages", "tools")}
        counted = await client.post(
            "/v1/messages/count_tokens?beta=true", json=counting, headers=CLAUDE_HEADERS
        )
        assert counted.json()["input_tokens"] > 0


async def test_claude_code_is_told_errors_within_a_stream(rig: Rig, provider: Simulator) -> None:
    """A provider that breaks off is told as Anthropic tells it: an `error` event."""
    async with rig.tcp_client(token=None) as client:
        body = CLAUDE_CODE | {"x_simulator_fault": "cut"}
        answer = await client.post("/v1/messages", json=body, headers=CLAUDE_HEADERS)
    last = events_of(answer.text)[-1]
    assert last["type"] == "error"
    assert last["error"]["type"] in ("api_error", "overloaded_error")
