"""Concurrency-controlled client and local gateway for OpenAI-compatible AI APIs.

Names are looked up when they are first used, so that `import ai_client` alone costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ai_client.client import AIAPIClient as AIAPIClient
    from ai_client.errors import AIClientError as AIClientError
    from ai_client.errors import AuthenticationError as AuthenticationError
    from ai_client.errors import BudgetExceeded as BudgetExceeded
    from ai_client.errors import DeadlineExceeded as DeadlineExceeded
    from ai_client.errors import MaxRetriesExceeded as MaxRetriesExceeded
    from ai_client.errors import ModelNotFoundError as ModelNotFoundError
    from ai_client.errors import OverloadError as OverloadError
    from ai_client.errors import PoolTimeout as PoolTimeout
    from ai_client.errors import RateLimitError as RateLimitError
    from ai_client.errors import TLSVerificationError as TLSVerificationError
    from ai_client.events import EventStream as EventStream
    from ai_client.keys import KeyProvider as KeyProvider
    from ai_client.limits import TokenBucket as TokenBucket
    from ai_client.options import ClientOptions as ClientOptions
    from ai_client.options import Limits as Limits
    from ai_client.request import CacheMode as CacheMode
    from ai_client.request import Importance as Importance
    from ai_client.request import Request as Request
    from ai_client.request import Response as Response
    from ai_client.request import Usage as Usage
    from ai_client.routing import ImportanceRouting as ImportanceRouting
    from ai_client.routing import RoutingPolicy as RoutingPolicy
    from ai_client.streaming import StreamResponse as StreamResponse

__version__ = "0.1.0"

_WHERE = {
    "AIAPIClient": "client",
    "AIClientError": "errors",
    "AuthenticationError": "errors",
    "BudgetExceeded": "errors",
    "CacheMode": "request",
    "ClientOptions": "options",
    "DeadlineExceeded": "errors",
    "EventStream": "events",
    "Importance": "request",
    "ImportanceRouting": "routing",
    "KeyProvider": "keys",
    "Limits": "options",
    "MaxRetriesExceeded": "errors",
    "ModelNotFoundError": "errors",
    "OverloadError": "errors",
    "PoolTimeout": "errors",
    "RateLimitError": "errors",
    "Request": "request",
    "Response": "request",
    "RoutingPolicy": "routing",
    "StreamResponse": "streaming",
    "TLSVerificationError": "errors",
    "TokenBucket": "limits",
    "Usage": "request",
}
__all__ = [*_WHERE, "__version__"]  # noqa: PLE0604 - a table of names


def __getattr__(name: str) -> Any:
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module 'ai_client' has no attribute {name!r}")
    value = getattr(import_module(f"ai_client.{module}"), name)
    globals()[name] = value
    return value
