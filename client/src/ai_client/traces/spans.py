"""From the last event of a request to its span, in OTLP's JSON (opentelemetry-proto, trace/v1). Pure."""

from __future__ import annotations

from typing import Any, Final

from ai_client.contract.events import Failed, Settled
from ai_client.traces import names
from ai_client.traces.context import SpanContext

Json = dict[str, Any]

_CLIENT_KIND: Final = 3
_ERROR_STATUS: Final = 2


def span_of(event: Settled | Failed, place: SpanContext) -> Json:
    """Of one request, from its arrival to its end. No text of the caller is in it."""
    end_ns = int(event.at * 1e9)
    operation = names.operation_of(event.endpoint)
    span: Json = {
        "traceId": place.trace_id,
        "spanId": place.span_id,
        "name": f"{operation} {event.model}".rstrip(),
        "kind": _CLIENT_KIND,
        "startTimeUnixNano": str(end_ns - int(event.latency_s * 1e9)),
        "endTimeUnixNano": str(end_ns),
        "attributes": [
            attribute(name, value) for name, value in _attributes(event, operation) if value is not None
        ],
    }
    if place.parent_id:
        span["parentSpanId"] = place.parent_id
    if isinstance(event, Failed):
        span["status"] = {"code": _ERROR_STATUS, "message": event.code}
    return span


def _attributes(event: Settled | Failed, operation: str) -> list[tuple[str, object]]:
    upstream, mark, _ = event.model.partition("/")
    found: list[tuple[str, object]] = [
        (names.OPERATION, operation),
        (names.PROVIDER, upstream if mark else "default"),
        (names.REQUEST_MODEL, event.asked_model or None),
        (names.RESPONSE_MODEL, event.model or None),
        (names.STATUS_CODE, event.status),
        (names.TENANT, event.tenant),
        (names.REQUEST_ID, event.request_id),
        (names.ATTEMPTS, event.attempts),
        (names.WAITED_S, event.waited_s),
    ]
    if isinstance(event, Failed):
        return [*found, (names.ERROR_TYPE, event.error)]
    found += [(names.CACHED, event.cached), (names.COST_USD, event.cost_usd)]
    if event.usage is not None:
        found += [
            (names.INPUT_TOKENS, event.usage.input_tokens),
            (names.OUTPUT_TOKENS, event.usage.output_tokens),
            (names.CACHED_TOKENS, event.usage.cached_input_tokens),
        ]
    return found


def attribute(name: str, value: object) -> Json:
    """OTLP's way of writing a value: whole numbers are text."""
    if isinstance(value, bool):
        return {"key": name, "value": {"boolValue": value}}
    if isinstance(value, int):
        return {"key": name, "value": {"intValue": str(value)}}
    if isinstance(value, float):
        return {"key": name, "value": {"doubleValue": value}}
    return {"key": name, "value": {"stringValue": str(value)}}


def export_of(spans: list[Json], *, service: str, version: str) -> Json:
    """An `ExportTraceServiceRequest`."""
    resource = {"attributes": [attribute(names.SERVICE_NAME, service)]}
    scope = {"name": "ai_client", "version": version}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": spans}]}]}
