"""One request on its way through the client: what is known of it so far."""

from __future__ import annotations

from msgspec import structs

from ai_client.errors import DeadlineExceeded
from ai_client.request import Request
from ai_client.wire import encode_body


class Call:
    """Mutable, and owned by the one task that carries the request. Times are monotonic seconds."""

    __slots__ = (
        "_bodies",
        "asked_model",
        "attempts",
        "billed_unknown",
        "deadline_at_s",
        "idempotency_key",
        "key_fingerprint",
        "model",
        "request",
        "request_id",
        "resent_for_key",
        "routed_model",
        "started_at_s",
        "upstream_s",
        "usage_asked",
        "waited_s",
    )

    def __init__(
        self, request: Request, *, request_id: str, model: str, now_s: float, deadline_s: float | None
    ) -> None:
        self.request = request
        self.request_id = request_id
        self.idempotency_key = request.idempotency_key or request_id
        #: What the caller asked for, what routing made of it, and what is being asked now.
        self.asked_model = request.model
        self.routed_model = model
        self.model = model
        self.started_at_s = now_s
        self.deadline_at_s = None if deadline_s is None else now_s + deadline_s
        self.attempts = 0
        self.waited_s = 0.0
        self.upstream_s = 0.0
        self.key_fingerprint = ""
        self.billed_unknown = False
        self.resent_for_key = False
        #: Whether we, not the caller, asked for the usage event of a stream.
        self.usage_asked = False
        self._bodies: tuple[str, bytes] | None = None

    def body(self) -> bytes | None:
        """The body for the model that is being asked; None where the endpoint takes none."""
        if self.request.endpoint == "models":
            return None
        if self._bodies is None or self._bodies[0] != self.model:
            body = encode_body(self.request, model=self.model or None, ask_usage=self.usage_asked)
            self._bodies = (self.model, body)
        return self._bodies[1]

    def routed_request(self) -> Request:
        """The request as it goes out: with the model that routing chose."""
        if self.routed_model == self.asked_model:
            return self.request
        return structs.replace(self.request, body={**self.request.body, "model": self.routed_model})

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
