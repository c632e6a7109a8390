"""What a caller wrote arrives upstream as it was written, but for what the service has to change."""

from __future__ import annotations

import re

import pytest

from ai_client.testing import Simulator
from tests.client.service_rig import Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")
HEADERS = {"content-type": "application/json", "x-ai-cache": "no-store"}
CHAT = (
    b'\n{ "z_unknown": {"b": 1, "a": [ 1.50, 1e3, -0.0 ]},\r\n\t"temperature" : 0.70,'
    b' "messages":[{"role":"user","content":"caf\\u00e9 \\ud83d\\ude00 \xc3\xa9 \\/ \\""}] ,'
    b'"model": "gpt-4.1","max_tokens":3 }\n'
)
SETTINGS = """rate_limit = 60000
[routing]
critical = claude-sonnet-4.5
"""


async def arrived(rig: Rig, provider: Simulator, path: str, sent: bytes, **headers: str) -> bytes:
    """What the provider got of a body."""
    async with rig.client() as client:
        answer = await client.post(path, content=sent, headers=HEADERS | headers)
    assert answer.status_code == 200, answer.text
    return provider.last_body


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/embeddings", b'{ "input" : ["\\u0061", "b"],  "model":"gpt-4.1" }'),
        ("/v1/completions", b'{"prompt":"\\u0061" , "max_tokens": 2,\n"model":"gpt-4.1"}'),
        ("/v1/messages", CHAT),
        ("/v1/responses", b'{ "input":"\\u0061","model" : "gpt-4.1", "store": false}'),
        ("/v1/moderations", b'{ "input":"\\u0061","model" : "gpt-4.1"}'),
    ],
)
async def test_an_unchanged_body_arrives_byte_for_byte(
    rig: Rig, provider: Simulator, path: str, sent: bytes
) -> None:
    """The order of members, white space, escapes and the spelling of numbers are the caller's."""
    assert await arrived(rig, provider, path, sent) == sent


async def test_routing_changes_the_model_alone(rig: Rig, provider: Simulator) -> None:
    """The caller marks the request, and `[routing]` names another model."""
    changed = CHAT.replace(b'"gpt-4.1"', b'"claude-sonnet-4.5"')
    marked = {"x-ai-importance": "critical"}
    assert await arrived(rig, provider, "/v1/chat/completions", CHAT, **marked) == changed


async def test_a_stream_gets_the_usage_option_at_the_end(rig: Rig, provider: Simulator) -> None:
    """The ledger settles a stream by its usage; the caller has not asked for it."""
    sent = CHAT.replace(b'"max_tokens":3 }', b'"stream": true }')
    added = sent.replace(b'"stream": true }', b'"stream": true,"stream_options":{"include_usage":true} }')
    assert await arrived(rig, provider, "/v1/chat/completions", sent) == added


async def test_the_default_model_is_added_at_the_end(rig: Rig, provider: Simulator) -> None:
    """Where the caller names none."""
    sent = re.sub(rb'"model": "gpt-4.1",', b"", CHAT)
    added = sent.replace(b'"max_tokens":3 }', b'"max_tokens":3,"model":"gpt-4.1" }')
    assert await arrived(rig, provider, "/v1/chat/completions", sent) == added


async def test_a_member_that_stands_twice_goes_up_once(rig: Rig, provider: Simulator) -> None:
    """What was checked and priced is what is asked for."""
    sent = (
        b'{"max_tokens":100000, "max_tokens":3,"model":"gpt-4.1","messages":[{"role":"user","content":"a"}]}'
    )
    came = await arrived(rig, provider, "/v1/chat/completions", sent)
    assert came == sent.replace(b'"max_tokens":100000, ', b"")
