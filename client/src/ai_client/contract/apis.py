"""The APIs that programs speak, and what the client must know of each to admit, meter and pass it on."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from msgspec import Struct

#: What an operation is called that only `[gateway] pass_through` knows.
PASS_THROUGH: Final = "pass_through"  # noqa: S105 - no secret
_FREE_METHODS: Final = frozenset(("GET", "HEAD", "OPTIONS", "DELETE"))


class Family(StrEnum):
    """Whose API it is: the shape of its errors, of its usage and of its streams' ends."""

    OPENAI = "openai"
    RESPONSES = "responses"
    ANTHROPIC = "anthropic"
    #: Pictures and speech: OpenAI's errors, and events with a `type` whose last ends in `.completed` or `.done`.
    MEDIA = "media"
    #: Nothing is known of it.
    UNKNOWN = "unknown"


class Api(Struct, frozen=True, kw_only=True):
    """One operation. Its `endpoint` names it in metrics, logs and the audit trail."""

    endpoint: str
    method: str = "POST"
    #: Under `/v1/`; `{id}` stands for the id of something stored.
    path: str = ""
    family: Family = Family.OPENAI
    #: The member that a body can't do without.
    required: str = ""
    #: Whether a body without a model gets the default one.
    has_model: bool = True
    #: Whether a `model` is no member of it, and only says which of several upstreams is meant.
    model_names_upstream: bool = False
    #: Whether it costs money. What does not is admitted and audited all the same.
    is_metered: bool = True
    #: Whether it may go again although it may have been executed: it only reads or counts.
    is_repeatable: bool = False
    #: Whether another model may answer in its place.
    may_fall_back: bool = False
    #: Whether the answer may be something else than a JSON object.
    is_raw: bool = False
    #: Whether the answer's `id` names something that the upstream keeps.
    is_kept: bool = False
    #: Whether it takes away what `{id}` names.
    removes: bool = False
    #: Whether nothing that the upstream keeps plays a part in it.
    is_stateless: bool = False

    @property
    def route(self) -> str:
        """Its path under `/v1/`."""
        return self.path or self.endpoint

    def meters(self, body: Mapping[str, object]) -> bool:
        """Whether a request costs money. One that is passed through does where it names a model."""
        return self.is_metered and (self.endpoint != PASS_THROUGH or bool(body.get("model")))

    def may_cost(self, body: Mapping[str, object], *, method: str) -> bool:
        """Whether it may cost money: what is passed through does unless it only reads, whatever model it is for."""
        return self.meters(body) or (self.endpoint == PASS_THROUGH and method not in _FREE_METHODS)


def _reading(
    endpoint: str,
    path: str,
    *,
    family: Family = Family.OPENAI,
    is_raw: bool = False,
    model_names_upstream: bool = False,
) -> Api:
    return Api(
        endpoint=endpoint,
        method="GET",
        path=path,
        family=family,
        has_model=False,
        is_metered=False,
        is_repeatable=True,
        is_raw=is_raw,
        model_names_upstream=model_names_upstream,
    )


def _counting(endpoint: str, *, family: Family, required: str = "") -> Api:
    return Api(endpoint=endpoint, family=family, required=required, is_metered=False, is_repeatable=True)


_RESPONSES = Family.RESPONSES

_ALL: Final = (
    Api(endpoint="chat/completions", required="messages", may_fall_back=True, is_stateless=True),
    Api(endpoint="completions", required="prompt", may_fall_back=True, is_stateless=True),
    Api(endpoint="embeddings", required="input", is_repeatable=True, is_stateless=True),
    _reading("models", "models"),
    _reading("models/retrieve", "models/{id}"),
    Api(endpoint="responses", family=_RESPONSES, may_fall_back=True, is_kept=True),
    Api(endpoint="responses/compact", family=_RESPONSES),
    _counting("responses/input_tokens", family=_RESPONSES),
    _reading("responses/retrieve", "responses/{id}", family=_RESPONSES),
    _reading("responses/input_items", "responses/{id}/input_items", family=_RESPONSES),
    Api(
        endpoint="responses/cancel",
        path="responses/{id}/cancel",
        family=_RESPONSES,
        has_model=False,
        is_metered=False,
        is_repeatable=True,
    ),
    Api(
        endpoint="responses/delete",
        method="DELETE",
        path="responses/{id}",
        family=_RESPONSES,
        has_model=False,
        is_metered=False,
        removes=True,
    ),
    Api(endpoint="messages", family=Family.ANTHROPIC, required="messages", may_fall_back=True),
    _counting("messages/count_tokens", family=Family.ANTHROPIC, required="messages"),
    Api(endpoint="images/generations", family=Family.MEDIA, required="prompt"),
    Api(endpoint="images/edits", family=Family.MEDIA, required="prompt"),
    Api(endpoint="images/variations", family=Family.MEDIA, required="image"),
    Api(endpoint="audio/speech", family=Family.MEDIA, required="input", is_raw=True),
    Api(endpoint="audio/transcriptions", family=Family.MEDIA, required="file", is_raw=True),
    Api(endpoint="audio/translations", family=Family.MEDIA, required="file", is_raw=True),
    Api(endpoint="moderations", required="input", has_model=False, is_metered=False, is_repeatable=True),
    Api(endpoint="rerank", required="documents", is_repeatable=True),
    Api(
        endpoint="files",
        required="file",
        has_model=False,
        model_names_upstream=True,
        is_metered=False,
        is_kept=True,
    ),
    _reading("files/list", "files", model_names_upstream=True),
    _reading("files/retrieve", "files/{id}"),
    _reading("files/content", "files/{id}/content", is_raw=True),
    Api(
        endpoint="files/delete",
        method="DELETE",
        path="files/{id}",
        has_model=False,
        is_metered=False,
        removes=True,
    ),
    Api(endpoint=PASS_THROUGH, method="", family=Family.UNKNOWN, has_model=False, is_raw=True),
)

#: By endpoint.
APIS: Final[Mapping[str, Api]] = MappingProxyType({api.endpoint: api for api in _ALL})


def api_of(endpoint: str) -> Api:
    """The API of an endpoint; one that is not known is passed through."""
    return APIS.get(endpoint) or APIS[PASS_THROUGH]
