"""The names of OpenTelemetry's semantic conventions for GenAI that this program writes, all in one place.

They are still in development there (open-telemetry/semantic-conventions, docs/gen-ai/gen-ai-spans.md): a change of
theirs is a change of this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
ERROR_TYPE: Final = "error.type"
STATUS_CODE: Final = "http.response.status_code"
SERVICE_NAME: Final = "service.name"

#: What the conventions have no name for.
TENANT: Final = "ai_client.tenant"
REQUEST_ID: Final = "ai_client.request_id"
CACHED: Final = "ai_client.cached"
ATTEMPTS: Final = "ai_client.attempts"
WAITED_S: Final = "ai_client.waited_s"
COST_USD: Final = "ai_client.cost_usd"

_OPERATIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "chat/completions": "chat",
        "responses": "chat",
        "messages": "chat",
        "completions": "text_completion",
        "embeddings": "embeddings",
        "images/generations": "generate_content",
    }
)


def operation_of(endpoint: str) -> str:
    """The conventions' word for an endpoint; its own name where they have none."""
    return _OPERATIONS.get(endpoint, endpoint)
