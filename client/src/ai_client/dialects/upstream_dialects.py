"""How the upstreams of one dialect are spoken to: their paths, how a key signs, and which APIs they have. Pure."""

from __future__ import annotations

from urllib.parse import quote

from ai_client.contract.apis import PASS_THROUGH, Api, Family
from ai_client.contract.keys import ApiKey
from ai_client.contract.upstreams import Dialect, Upstream

ANTHROPIC_VERSION = "2023-06-01"
# What Anthropic has beside its own API (docs: "OpenAI SDK compatibility", "Files", "Models").
_OF_ANTHROPIC = ("chat/completions", "models", "files")
# What is addressed by its deployment in Azure's dated API; the rest lies beside the deployments.
_DEPLOYED = ("chat/", "completions", "embeddings", "images/", "audio/")


def speaks(dialect: Dialect, api: Api) -> bool:
    """Whether upstreams of the dialect have the API."""
    if api.endpoint == PASS_THROUGH or dialect is Dialect.COMPATIBLE:
        return True
    if dialect is Dialect.ANTHROPIC:
        return api.family is Family.ANTHROPIC or api.route.startswith(_OF_ANTHROPIC)
    return api.family is not Family.ANTHROPIC and api.endpoint != "rerank"


def url_of(upstream: Upstream, path: str, *, model: str) -> str:
    """Where `path` (with its query) is; `model` is the upstream's own name of it."""
    if not upstream.api_version:
        return f"{upstream.base_url}/{path}"
    deployment = f"deployments/{quote(model, safe='')}/" if model and path.startswith(_DEPLOYED) else ""
    mark = "&" if "?" in path else "?"
    return f"{upstream.base_url}/{deployment}{path}{mark}api-version={quote(upstream.api_version)}"


def is_anthropics(upstream: Upstream, api: Api) -> bool:
    """Whether the request is one of Anthropic's own API, of which only its chat completions are none there."""
    return api.family is Family.ANTHROPIC or (
        upstream.dialect is Dialect.ANTHROPIC and not api.route.startswith("chat/")
    )


def credentials(upstream: Upstream, key: ApiKey, api: Api) -> dict[str, str]:
    """The headers that sign a request."""
    dialect = Dialect.COMPATIBLE if upstream.has_token else upstream.dialect
    if dialect is Dialect.AZURE:
        return {"api-key": key.reveal()}
    if dialect is Dialect.ANTHROPIC and is_anthropics(upstream, api):
        return {"x-api-key": key.reveal()}
    return {"Authorization": key.authorization}
