"""Vault's HTTP API as its public documentation has it, on this machine: key-value engines, three logins, a standby.

The binary is in no registry that the tests may use. Paths, headers, statuses and the form of answers and errors are
those of https://developer.hashicorp.com/vault/api-docs: secret/kv/kv-v1, secret/kv/kv-v2, auth/approle, auth/jwt,
auth/kubernetes and "HTTP status codes".
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

TOKEN = "hs_test_vault_token"
# In the place of a secret's fields: its newest version was deleted (hvac/hvac issue 906).
DELETED = {"deleted": "yes"}
Answer = tuple[int, dict[str, Any]]


# As Vault words it, without an `errors` (nodevault/node-vault issue 145).
WRONG_VERSION = "Invalid path for a versioned K/V secrets engine. See the API docs."


@dataclass
class Vault:
    """What the server holds, and how it behaves.

    Attributes:
        url: where it listens.
        secrets: fields of each secret by path, engine's mount included and `data/` of version 2 left out.
        proofs: proof that a login takes, by its path.
        namespace: the only namespace that it knows; "" for none.
        is_sealed: whether it answers 503.
        standby_of: the active node that it sends callers to; "" where it is that.
        asked: path of every request that came.
    """

    url: str = ""
    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)
    proofs: dict[str, dict[str, str]] = field(default_factory=dict)
    namespace: str = ""
    is_sealed: bool = False
    standby_of: str = ""
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> Answer:
        """Status and content, or status 307 with the location."""
        self.asked.append(path)
        if self.is_sealed:
            return 503, {"errors": ["Vault is sealed"]}
        if self.standby_of:
            return 307, {"location": f"{self.standby_of}{path}"}
        if headers.get("x-vault-namespace", "") != self.namespace:
            return 404, {"errors": ["no handler for route. route entry not found."]}
        if path.endswith("/login"):
            return self._login(path.removeprefix("/v1/"), body)
        if headers.get("x-vault-token") != TOKEN:
            return 403, {"errors": ["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}
        return self._secret(path.removeprefix("/v1/"))

    def _login(self, path: str, body: dict[str, Any]) -> Answer:
        if path not in self.proofs or body != self.proofs[path]:
            return 400, {"errors": ["invalid role or secret ID"]}
        return 200, {"auth": {"client_token": TOKEN, "lease_duration": 3600, "renewable": True}}

    def _secret(self, path: str) -> Answer:
        mount, _, rest = path.partition("/")
        is_second = rest.startswith("data/")
        fields = self.secrets.get(f"{mount}/{rest.removeprefix('data/')}")
        if fields is not None and mount.startswith("secret") and not is_second:
            return 404, {"request_id": "1", "data": None, "warnings": [WRONG_VERSION]}
        if fields is None or is_second != mount.startswith("secret"):
            return 404, {"errors": []}
        if fields == DELETED:
            gone = {"deletion_time": "2026-01-02T00:00:00Z", "destroyed": False, "version": 2}
            return 404, {"request_id": "1", "data": {"data": None, "metadata": gone}}
        metadata = {"created_time": "2026-01-01T00:00:00Z", "destroyed": False, "version": 1}
        data = {"data": fields, "metadata": metadata} if is_second else fields
        return 200, {"request_id": "1", "lease_id": "", "renewable": False, "data": data}


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[Vault]:
    """A server of its own, ended with the block; with TLS where a context is given."""
    vault = Vault()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(size)) if size else {}
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, content = vault.answer(self.path, headers, body)
            text = json.dumps(content).encode()
            self.send_response(status)
            if status == 307:
                self.send_header("location", content["location"])
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *_: object) -> None:
            """Nothing: the test reads what was asked."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        vault.url = f"http{'s' if context else ''}://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield vault
        finally:
            server.shutdown()
            thread.join()
