"""Concurrency-controlled client and local gateway for OpenAI-compatible AI APIs.

Names are looked up when they are first used, so that `import ai_client` alone costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ai_client.admission.window import TokenBucket as TokenBucket
    from ai_client.calls.routing import ImportanceRouting as ImportanceRouting
    from ai_client.calls.routing import RoutingPolicy as RoutingPolicy
    from ai_client.calls.streams import StreamResponse as StreamResponse
    from ai_client.client import AIAPIClient as AIAPIClient
    from ai_client.contract.events import EventStream as EventStream
    from ai_client.contract.keys import KeyProvider as KeyProvider
    from ai_client.contract.options import ClientOptions as ClientOptions
    from ai_client.contract.options import Limits as Limits
    from ai_client.contract.request import CacheMode as CacheMode
    from ai_client.contract.request import Importance as Importance
    from ai_client.contract.request import Request as Request
    from ai_client.contract.request import Response as Response
    from ai_client.contract.request import Usage as Usage
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

__version__ = "1.0.0"

_WHERE = {
    "AIAPIClient": "client",
    "AIClientError": "errors",
    "AuthenticationError": "errors",
    "BudgetExceeded": "errors",
    "CacheMode": "contract.request",
    "ClientOptions": "contract.options",
    "DeadlineExceeded": "errors",
    "EventStream": "contract.events",
    "Importance": "contract.request",
    "ImportanceRouting": "calls.routing",
    "KeyProvider": "contract.keys",
    "Limits": "contract.options",
    "MaxRetriesExceeded": "errors",
    "ModelNotFoundError": "errors",
    "OverloadError": "errors",
    "PoolTimeout": "errors",
    "RateLimitError": "errors",
    "Request": "contract.request",
    "Response": "contract.request",
    "RoutingPolicy": "calls.routing",
    "StreamResponse": "calls.streams",
    "TLSVerificationError": "errors",
    "TokenBucket": "admission.window",
    "Usage": "contract.request",
}
__all__ = [*_WHERE, "__version__"]  # noqa: PLE0604 - a table of names


def __getattr__(name: str) -> Any:
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module 'ai_client' has no attribute {name!r}")
    value = getattr(import_module(f"ai_client.{module}"), name)
    globals()[name] = value
    return value
