"""From a caller's HTTP request to a request of the client, for every API of the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from ai_client.contract.apis import PASS_THROUGH, Api, Family
from ai_client.contract.request import Passage, Request
from ai_client.contract.written_body import with_members
from ai_client.dialects.forms import fields_of, is_form, parts_of
from ai_client.gateway.app import body_checks
from ai_client.gateway.app.failures import Failure, invalid
from ai_client.gateway.app.incoming import IncomingCall, are_messages, parse
from ai_client.gateway.app.routes import Found

#: Methods whose requests have no body.
BODILESS = frozenset(("GET", "HEAD", "DELETE", "OPTIONS"))

_JSON = "application/json"


async def api_request(
    call: IncomingCall, found: Found, *, max_bytes: int, default_model: str
) -> Request | Failure:
    """Read and check what the caller sent."""
    content = b""
    if call.method not in BODILESS:
        read = await call.body(max_bytes)
        if isinstance(read, Failure):
            return read
        content = read
    content_type = call.steering.content_type.decode("latin-1") or _JSON
    body = _body_of(content, content_type, found.api)
    if isinstance(body, Failure):
        return body
    if _names_no_model(body, found.api):
        body = with_members(body, {"model": default_model})
    refusal = _check(body, found.api)
    return refusal or _request(call, found, body=body, content=content, content_type=content_type)


def _request(
    call: IncomingCall, found: Found, *, body: dict[str, Any], content: bytes, content_type: str
) -> Request:
    api = found.api
    query = call.query.decode("latin-1")
    is_bodiless = call.method in BODILESS
    if is_bodiless and api.model_names_upstream:
        query, body = _without_model(query)
    is_read = bool(body) and not is_bodiless and not is_form(content_type)
    # Sound is heard as it comes, whatever it was asked for by.
    stream = _truth(body.get("stream")) or _asks_for_stream(query) or api.endpoint == "audio/speech"
    passage = Passage(
        method=call.method,
        path=f"{found.path}?{query}" if query else found.path,
        # What was read goes up as it was read, whatever it was called: never something that nobody looked at.
        content=None if is_read else content,
        content_type=_JSON if is_read else content_type,
        is_raw=api.is_raw,
        stored_id=found.stored_id,
    )
    return call.as_request(api.endpoint, body, stream=stream, passage=passage)


def _without_model(query: str) -> tuple[str, dict[str, Any]]:
    """The query as the upstream gets it, and which upstream that is: `model=NAME/`, as in an upload's form."""
    fields = parse_qsl(query, keep_blank_values=True)
    named = [value for name, value in fields if name == "model"]
    if not named:
        return query, {}
    return urlencode([each for each in fields if each[0] != "model"]), {"model": named[-1]}


def _is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == _JSON


def _asks_for_stream(query: str) -> bool:
    return bool(_truth(dict(parse_qsl(query)).get("stream")))


def _truth(told: object) -> bool | None:
    """In forms and queries it is a text, which programs in Python write `True`; None where it is neither."""
    if isinstance(told, str):
        told = {"true": True, "false": False}.get(told.lower(), told)
    return bool(told) if told is None or isinstance(told, bool) else None


def _body_of(content: bytes, content_type: str, api: Api) -> dict[str, Any] | Failure:
    """JSON, or a form's fields; of anything else, which only what is passed through may be, nothing."""
    if is_form(content_type):
        fields = fields_of(parts_of(content, content_type))
        # Numbers are texts in a form.
        return body_checks.refusal_of({name: fields[name] for name in ("model",) if name in fields}) or fields
    if not content and not api.required:
        return {}
    if api.endpoint == PASS_THROUGH and not _is_json(content_type):
        return {}
    return parse(content)


def _names_no_model(body: Mapping[str, Any], api: Api) -> bool:
    """A stored prompt of OpenAI's brings its own."""
    return api.has_model and "model" not in body and not (api.family is Family.RESPONSES and "prompt" in body)


def _check(body: Mapping[str, Any], api: Api) -> Failure | None:
    required = api.required
    if required and required not in body and not (required == "image" and "image[]" in body):
        return invalid(f"The field {required} is missing.", param=required)
    if required == "messages" and not are_messages(body["messages"]):
        return invalid("messages must be a list of objects, at least one.", param="messages")
    if not isinstance(body.get("model", ""), str):
        return invalid("model must be a text.", param="model")
    if "stream" in body and _truth(body["stream"]) is None:
        return invalid("stream must be true or false.", param="stream")
    return None
