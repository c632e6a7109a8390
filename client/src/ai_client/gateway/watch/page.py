"""The status page: one file, no data in it; it asks `/status.json` itself."""

from __future__ import annotations

from pathlib import Path

from ai_client.gateway.http.asgi import Headers, Send, respond

PAGE = Path(__file__).with_name("status.html")
NO_STORE = (b"cache-control", b"no-store")

# The page's own style and script are inline; nothing else may be loaded, and nobody may frame it.
_HEADERS: Headers = [
    (b"content-type", b"text/html; charset=utf-8"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
        b"img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    NO_STORE,
]


async def respond_page(send: Send) -> None:
    """Answer with it."""
    await respond(send, 200, list(_HEADERS), PAGE.read_bytes())
