"""Where requests go: the upstreams of one client, and what each of them calls its models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ai_client.contract.keys import KeyProvider


class Dialect(StrEnum):
    """Which APIs an upstream speaks, how a key signs, and where its models' paths are."""

    #: OpenAI itself.
    OPENAI = "openai"
    #: Azure OpenAI: `api-key`, and deployments' paths where an `api_version` is declared.
    AZURE = "azure"
    #: Anthropic itself: `x-api-key` and a version; a bearer token for `/v1/chat/completions` alone.
    ANTHROPIC = "anthropic"
    #: Anything else: every API is asked for, with a bearer token.
    COMPATIBLE = "compatible"


@dataclass(slots=True, kw_only=True, eq=False)
class Upstream:
    """One provider's account. The default one has no name; a model of another is `NAME/MODEL` everywhere."""

    base_url: str
    keys: KeyProvider
    name: str = ""
    dialect: Dialect = Dialect.COMPATIBLE
    #: Whether requests are signed at all; a server of one's own may take any.
    needs_key: bool = True
    #: Whether the key is an access token, which signs as a bearer's whatever the dialect.
    has_token: bool = False
    #: Of Azure's dated API; "" for its `/openai/v1`.
    api_version: str = ""
    #: The names of its models, and what it calls them itself. Empty: any model, by its own name.
    models: Mapping[str, str] = field(default_factory=dict)
    #: Whether the cost that its answers tell is what is booked.
    tells_cost: bool = False
    #: Whether it writes on, and bills all of it, where a stream is cut.
    bills_cut_streams: bool = False
    #: Of those that have a model the lowest is asked first; of the same order one by chance, as they weigh.
    order: int = 0
    weight: float = 1.0

    def label(self, model: str) -> str:
        """What a model of this upstream is called in limits, prices, metrics and the ledger."""
        if not self.name:
            return model
        return f"{self.name}/{model}" if model else self.name
