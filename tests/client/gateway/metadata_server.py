"""Servers that hand out access tokens, as Google's and Microsoft's document them, on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit


@dataclass
class Metadata:
    """What it hands out.

    Attributes:
        host: `HOST:PORT` where it listens.
        token: the token of the next answer.
        lifetime_s: how long that is good for.
        status: of the next answer.
        asked: path, headers of interest and form of every request.
    """

    host: str = ""
    token: str = "ya29.a-token-of-the-tests"
    lifetime_s: float = 3600
    status: int = 200
    asked: list[tuple[str, dict[str, str], dict[str, list[str]]]] = field(default_factory=list)


@contextmanager
def metadata() -> Iterator[Metadata]:
    """A server of its own, ended with the block."""
    held = Metadata()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            size = int(self.headers.get("content-length") or 0)
            form = parse_qs(self.rfile.read(size).decode())
            headers = {name.lower(): value for name, value in self.headers.items()}
            held.asked.append((self.path, headers, form))
            lifetime = held.lifetime_s
            # Microsoft's metadata service writes numbers as texts.
            told = str(lifetime) if "metadata/identity" in self.path else lifetime
            answer = {"access_token": held.token, "expires_in": told, "token_type": "Bearer"}
            text = json.dumps(answer if held.status == 200 else {"error": "not here"}).encode()
            self.send_response(held.status if self._is_known(headers) else 403)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_POST(self) -> None:
            self.do_GET()

        def _is_known(self, headers: dict[str, str]) -> bool:
            path = urlsplit(self.path).path
            if path == "/computeMetadata/v1/instance/service-accounts/default/token":
                return headers.get("metadata-flavor") == "Google"
            if path == "/metadata/identity/oauth2/token":
                return headers.get("metadata") == "true"
            if path == "/msi/token":
                return headers.get("x-identity-header") == "of-the-app"
            return self.command == "POST" and path == "/the-tenant/oauth2/v2.0/token"

        def log_message(self, *_: object) -> None:
            """Nothing: the test reads what was asked."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        held.host = f"127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield held
        finally:
            server.shutdown()
            thread.join()
