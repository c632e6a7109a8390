"""One request on its way through the client: what is known of it so far."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import structs

from ai_client.calls.targets import Target
from ai_client.contract.apis import api_of
from ai_client.contract.keys import KeyProvider
from ai_client.contract.request import Passage, Request, Usage
from ai_client.contract.stores import EntryId
from ai_client.contract.upstreams import Dialect
from ai_client.contract.written_body import with_members
from ai_client.dialects.forms import with_model, without_field
from ai_client.dialects.http_request import encode_body
from ai_client.errors import DeadlineExceeded


class Call:
    """One request on its way to an answer: its deadline, target, key, attempts and what it waited.

    Mutable, and owned by the one task that carries the request. Times are monotonic seconds.
    """

    __slots__ = (
        "_bodies",
        "api",
        "asked_model",
        "attempts",
        "billed_unknown",
        "deadline_at_s",
        "entry",
        "hides_usage",
        "home",
        "home_fingerprint",
        "idempotency_key",
        "key_fingerprint",
        "may_cost",
        "model",
        "name_there",
        "output_bound",
        "request",
        "request_id",
        "resent_for_key",
        "routed_model",
        "started_at_s",
        "target",
        "upstream_s",
        "usage_asked",
        "waited_s",
    )

    def __init__(
        self, request: Request, *, request_id: str, model: str, now_s: float, deadline_s: float | None
    ) -> None:
        self.request = request
        self.api = api = api_of(request.endpoint)
        #: Whether it may cost money.
        self.may_cost = api.may_cost(request.body, method=self.method)
        self.request_id = request_id
        self.idempotency_key = request.idempotency_key or request_id
        #: What the caller asked for, what routing made of it, and what is being asked now.
        self.asked_model = request.model
        self.routed_model = model
        self.model = model
        #: The model that is being asked, by its upstream's own name.
        self.name_there = model
        #: Where it is being asked, once that is decided.
        self.target: Target | None = None
        #: Where what is asked for was made, and the key that made it.
        self.home: Target | None = None
        self.home_fingerprint = ""
        self.started_at_s = now_s
        self.deadline_at_s = None if deadline_s is None else now_s + deadline_s
        self.attempts = 0
        self.waited_s = 0.0
        self.upstream_s = 0.0
        self.key_fingerprint = ""
        self.billed_unknown = False
        #: Of the ledger, where it was booked: the last attempt's.
        self.entry: EntryId | None = None
        self.resent_for_key = False
        #: Whether we, not the caller, asked for the usage event of a stream; it is hidden from the caller, even where
        #: the upstream turns out to send it unasked.
        self.usage_asked = self.hides_usage = False
        #: The bound of the output that is sent along, where a hard budget needs one and nobody else sets it.
        self.output_bound: int | None = None
        self._bodies: tuple[tuple[str, bool, int | None], bytes] | None = None

    def aim(self, target: Target) -> None:
        """From now on that model of that upstream is asked."""
        self.target = target
        self.model = target.label
        self.name_there = target.name_there
        self.resent_for_key = False
        self.output_bound = None

    @property
    def keys(self) -> KeyProvider:
        """Those that sign where it is being asked."""
        assert self.target is not None  # noqa: S101 - for the type checker; nothing is signed before
        return self.target.upstream.keys

    @property
    def method(self) -> str:
        """Of the request that goes out."""
        passage = self.request.passage
        return "POST" if passage is None else passage.method

    @property
    def is_openai(self) -> bool:
        """Whether OpenAI itself is being asked, or Azure."""
        return self.target is not None and self.target.upstream.dialect in (Dialect.OPENAI, Dialect.AZURE)

    @property
    def has_answer_of_asked_model(self) -> bool:
        """Whether it went to the model that was asked for, on whatever upstream."""
        target = self.target
        return self.model == self.routed_model or (target is not None and target.model == self.routed_model)

    def body(self) -> bytes | None:
        """The body for the model that is being asked; None where the endpoint takes none."""
        request = self.request
        if request.endpoint == "models":
            return None
        kind = (self.name_there, self.usage_asked, self.output_bound)
        if self._bodies is None or self._bodies[0] != kind:
            passage = request.passage
            if passage is None or (passage.content is None and request.body):
                body = encode_body(
                    request,
                    model=kind[0] or None,
                    ask_usage=self.usage_asked,
                    output_bound=self.output_bound,
                    is_openai=self.is_openai,
                )
            elif passage.method in ("GET", "DELETE"):
                return None
            else:
                body = self._form(passage)
            self._bodies = (kind, body)
        return self._bodies[1]

    def _form(self, passage: Passage) -> bytes:
        content = passage.content or b""
        is_elsewhere = self.target is not None and bool(self.target.upstream.name)
        if is_elsewhere and self.api.model_names_upstream:
            return without_field(content, passage.content_type, name="model")
        return with_model(content, passage.content_type, model=self.name_there)

    def counted(self, usage: Usage | None) -> Usage | None:
        """What of `usage` this call has used: who reads a stored response is told what another one did."""
        return usage if self.may_cost else None

    def ask_usage(self) -> None:
        """Asks for the usage event of a stream where its caller does not: it is what the call is settled by."""
        given = self.request.body.get("stream_options")
        if given is None or (isinstance(given, Mapping) and given.get("include_usage") is not True):
            self.usage_asked = self.hides_usage = True

    def routed_request(self) -> Request:
        """The request as it goes out: with the model that routing chose."""
        if self.routed_model == self.asked_model:
            return self.request
        return structs.replace(
            self.request, body=with_members(self.request.body, {"model": self.routed_model})
        )

    def remaining_s(self, now_s: float) -> float | None:
        return None if self.deadline_at_s is None else self.deadline_at_s - now_s

    def deadline_error(self, phase: str) -> DeadlineExceeded:
        deadline_at_s = self.deadline_at_s if self.deadline_at_s is not None else self.started_at_s
        return DeadlineExceeded(
            f"request {self.request_id}",
            deadline_s=deadline_at_s - self.started_at_s,
            phase=phase,
            request_id=self.request_id,
        )
