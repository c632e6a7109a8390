"""Asks a gateway through the litellm SDK, which is told its address and token and nothing else: answers as JSON.

Runs in a venv that holds litellm and nothing of ours: python litellm_caller.py BASE_URL TOKEN
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import litellm

MESSAGES = [{"role": "user", "content": "hello world"}]


async def asked(base_url: str, token: str) -> dict[str, Any]:
    """What each kind of call came to."""
    where = {"api_base": base_url, "api_key": token}
    chat = {"model": "openai/gpt-4.1", "messages": MESSAGES, "max_tokens": 2, **where}
    plain = litellm.completion(**chat)
    stream = litellm.completion(**chat, stream=True)
    embedded = litellm.embedding(model="openai/text-embedding-3-small", input=["one", "two"], **where)
    try:
        litellm.completion(**(chat | {"model": "openai/gpt-9"}))
        refused = ""
    except litellm.NotFoundError as exc:
        refused = str(exc)
    return {
        "plain": plain.choices[0].message.content,
        "completion_tokens": plain.usage.completion_tokens,
        "stream": "".join(chunk.choices[0].delta.content or "" for chunk in stream),
        "asynchronous": (await litellm.acompletion(**chat)).choices[0].message.content,
        "asynchronous_stream": "".join(
            [
                chunk.choices[0].delta.content or ""
                async for chunk in await litellm.acompletion(**chat, stream=True)
            ]
        ),
        "embeddings": [len(item["embedding"]) for item in embedded.data],
        "refused": refused,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(asked(*sys.argv[1:]))))
