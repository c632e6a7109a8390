"""What upstreams keep, such as `resp_…` and `file-…`: it is asked for where it was made, by whom it belongs to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from ai_client.calls.call import Call
from ai_client.calls.targets import Targets
from ai_client.contract.apis import Api, Family, api_of
from ai_client.contract.request import Request, Response, Usage
from ai_client.contract.stores import EntryId, Home, Homes, Ledger
from ai_client.dialects.usage import drawn_of, searches_of, usage_from_json
from ai_client.dialects.verdict import UNDER_WAY
from ai_client.errors import BadRequestError
from ai_client.platform.json_text import write_json

#: Who asks these is told what the response used in the end.
_TELLING: Final = frozenset(("responses/retrieve", "responses/cancel"))


class StoredThings:
    """Notes where things are made, and sends calls to their homes."""

    def __init__(self, homes: Homes, targets: Targets, ledger: Ledger | None = None) -> None:
        self._homes = homes
        self._ledger = ledger
        self._targets = targets

    def send_home(self, call: Call) -> None:
        """Has the call go where what it asks for lies. What nobody knows of is asked of the upstream of its model.

        Raises BadRequestError where it belongs to another tenant, or its upstream is not configured any more.
        """
        request = call.request
        stored_id = _asked_for(request, call.api)
        home = self._homes.find(stored_id) if stored_id else None
        if home is None:
            return
        if home.tenant != request.tenant:
            raise _not_found(stored_id, "does not exist")
        target = self._targets.at(home.upstream, call.model)
        if target is None:
            raise _not_found(stored_id, f"is kept by the upstream {home.upstream}, which is not configured")
        call.home = target
        call.home_fingerprint = home.key_fingerprint

    def note(self, call: Call, stored_id: str) -> None:
        """Something was made, and is kept."""
        target = call.target
        if target is None:
            return
        home = Home(
            upstream=target.upstream.name,
            key_fingerprint=call.key_fingerprint,
            tenant=call.request.tenant,
            entry=call.entry or 0,
            request_id=call.request_id,
            model=call.model,
        )
        self._homes.note(stored_id, home)

    def note_answer(self, call: Call, response: Response) -> None:
        """A whole answer came: to something that makes, or takes away, what is kept."""
        api = call.api
        if api.removes and call.request.passage is not None:
            self._homes.forget(call.request.passage.stored_id)
        elif call.request.endpoint in _TELLING:
            self.book_late(call, _final_usage(response.json()))
        elif api.is_kept and is_kept(call.request):
            value: Any = response.json()
            stored_id = value.get("id") if isinstance(value, dict) else None
            if isinstance(stored_id, str):
                self.note(call, stored_id)

    def without_others(self, call: Call, response: Response) -> Response:
        """A list of files without those of other tenants: all of them use one account of the provider's."""
        if call.request.endpoint != "files/list":
            return response
        value: Any = response.json()
        listed = value.get("data") if isinstance(value, dict) else None
        if not isinstance(listed, list):
            return response
        shown = [each for each in listed if self._may_see(call.request.tenant, each)]
        if len(shown) == len(listed):
            return response
        return replace(response, body=write_json({**value, "data": shown}))

    def _may_see(self, tenant: str, listed: Any) -> bool:
        stored_id = listed.get("id") if isinstance(listed, dict) else None
        home = self._homes.find(stored_id) if isinstance(stored_id, str) else None
        return home is None or home.tenant == tenant

    def book_late(self, call: Call, usage: Usage | None) -> None:
        """What a response used that was made before, and is booked whole as long as nobody knows."""
        passage = call.request.passage
        if usage is None or self._ledger is None or passage is None or call.request.endpoint not in _TELLING:
            return
        home = self._homes.find(passage.stored_id)
        if home is not None and home.entry > 0 and home.tenant == call.request.tenant:
            self._ledger.amend(EntryId(home.entry), request_id=home.request_id, model=home.model, usage=usage)


def _final_usage(value: Any) -> Usage | None:
    """Of a response that has ended, however it did."""
    if not isinstance(value, dict) or value.get("status") in UNDER_WAY:
        return None
    return usage_from_json(
        value.get("usage"),
        tier=value.get("service_tier"),
        searches=searches_of(value),
        drawn=drawn_of(value),
    )


def is_kept(request: Request) -> bool:
    """Whether the upstream keeps the answer."""
    return api_of(request.endpoint).is_kept and request.body.get("store") is not False


def _asked_for(request: Request, api: Api) -> str:
    if request.passage is not None and request.passage.stored_id:
        return request.passage.stored_id
    if api.family is Family.RESPONSES:
        before = request.body.get("previous_response_id")
        return before if isinstance(before, str) else ""
    return ""


def _not_found(stored_id: str, reason: str) -> BadRequestError:
    return BadRequestError(
        stored_id,
        reason,
        status=404,
        upstream_code="not_found",
        remedy="Check the id; a stored response is found by the tenant that made it, where it was made.",
    )
