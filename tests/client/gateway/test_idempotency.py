"""An idempotency key is its tenant's own."""

from __future__ import annotations

from ai_client.gateway.app.body_room import BodyRoom
from ai_client.gateway.app.callers import Caller
from ai_client.gateway.app.headers import Steering
from ai_client.gateway.app.incoming import IncomingCall
from ai_client.gateway.http.asgi import Message


async def _receive() -> Message:
    return {}


async def _send(message: Message) -> None:
    del message


def _key(tenant: str, key: str | None) -> str | None:
    call = IncomingCall(
        "POST",
        "/v1/chat/completions",
        caller=Caller(tenant, 5, is_operator=False),
        steering=Steering(idempotency_key=key),
        receive=_receive,
        send=_send,
        task=None,
        arrived_s=0.0,
        room=BodyRoom(),
    )
    return call.idempotency_key


def test_two_tenants_with_one_key_do_not_share_an_answer() -> None:
    """The provider knows one account alone: what it is sent differs by the tenant, and not from try to try."""
    assert _key("a", "1") == _key("a", "1") != _key("b", "1")
    assert _key("a", None) is None


def test_no_name_can_be_cut_so_that_it_meets_another() -> None:
    """`ab` with key `c` is not `a` with key `bc`."""
    assert _key("ab", "c") != _key("a", "bc")
