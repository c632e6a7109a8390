"""Asks a gateway through LangChain, LiteLLM and Pydantic AI, which are told its address and token: answers as JSON.

Runs in a venv that holds them and nothing of ours: python frameworks_caller.py ADDRESS TOKEN
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import litellm
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

PROMPT = "hello world"
MESSAGES = [{"role": "user", "content": PROMPT}]
CLAUDE = "claude-sonnet-4.5"


class Reply(BaseModel):
    """A structured answer."""

    answer: str


def langchain(address: str, token: str) -> dict[str, Any]:
    """Chat, a stream, tools, structured output, the Responses API, and Anthropic's."""
    chat = ChatOpenAI(model="gpt-4.1", base_url=f"{address}/v1", api_key=token, max_tokens=2)
    responses = ChatOpenAI(model="gpt-4.1", base_url=f"{address}/v1", api_key=token, use_responses_api=True)
    claude = ChatAnthropic(model_name=CLAUDE, base_url=address, api_key=token, max_tokens=2)
    schema = {"title": "weather", "type": "object", "properties": {"city": {"type": "string"}}}
    tools = chat.bind_tools([schema | {"description": "The weather."}])
    return {
        "chat": chat.invoke(PROMPT).content,
        "stream": "".join(str(chunk.content) for chunk in chat.stream(PROMPT)),
        "tool": tools.invoke(PROMPT).tool_calls[0]["name"],
        "structured": chat.with_structured_output(Reply, method="json_schema").invoke(PROMPT).answer,
        "responses": responses.invoke(PROMPT).text[:11],
        "claude": claude.invoke(PROMPT).content,
        "claude_stream": "".join(str(chunk.text) for chunk in claude.stream(PROMPT)),
    }


async def lite(address: str, token: str) -> dict[str, Any]:
    """The Responses API, and Anthropic's."""
    where = {"api_base": f"{address}/v1", "api_key": token}
    made = await litellm.aresponses(model="openai/gpt-4.1", input=PROMPT, max_output_tokens=16, **where)
    message = await litellm.acompletion(
        model=f"anthropic/{CLAUDE}", messages=MESSAGES, max_tokens=2, api_base=address, api_key=token
    )
    return {
        "responses": made.output[0].content[0].text[:11],
        "claude": message.choices[0].message.content,
        "claude_tokens": message.usage.completion_tokens,
    }


async def pydantic(address: str, token: str) -> dict[str, Any]:
    """Chat, the Responses API and Anthropic's, and a stream of it."""
    openai = OpenAIProvider(base_url=f"{address}/v1", api_key=token)
    anthropic = AnthropicProvider(base_url=address, api_key=token)
    chat, responses = (
        OpenAIChatModel("gpt-4.1", provider=openai),
        OpenAIResponsesModel("gpt-4.1", provider=openai),
    )
    claude = Agent(AnthropicModel(CLAUDE, provider=anthropic))
    async with claude.run_stream(PROMPT) as streamed:
        pieces = [piece async for piece in streamed.stream_text(delta=True)]
    return {
        "chat": (await Agent(chat).run(PROMPT)).output[:11],
        "responses": (await Agent(responses).run(PROMPT)).output[:11],
        "claude": (await claude.run(PROMPT)).output[:11],
        "claude_stream": "".join(pieces)[:11],
    }


async def asked(address: str, token: str) -> dict[str, Any]:
    """What each kind of call came to."""
    return {
        "langchain": await asyncio.to_thread(langchain, address, token),
        "litellm": await lite(address, token),
        "pydantic_ai": await pydantic(address, token),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(asked(*sys.argv[1:]))))
