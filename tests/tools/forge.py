"""A forge's comments, served over HTTP as GitHub and GitLab serve them."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "test-token-of-the-job"
BOT = "github-actions[bot]"


class Forge(ThreadingHTTPServer):
    """A forge with the comments of one request, numbered 7; refuses whoever has no token, and fails on demand."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.comments: list[dict[str, Any]] = []
        self.seen: list[tuple[str, str]] = []
        self.failures: list[int] = []
        self.writer = BOT

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, body: str, *, writer: str = BOT) -> None:
        user = {"login": writer, "username": writer}
        self.comments.append({"id": 100 + len(self.comments), "body": body, "user": user, "author": user})


class Handler(BaseHTTPRequestHandler):
    server: Forge

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if not self.is_refused(parts.path):
            if parts.path == "/user":
                self.answer(200, {"username": self.server.writer})
                return
            query = parse_qs(parts.query)
            first = (int(query["page"][0]) - 1) * int(query["per_page"][0])
            self.answer(200, self.server.comments[first : first + int(query["per_page"][0])])

    def do_POST(self) -> None:
        body = self.body()
        if not self.is_refused(self.path):
            self.server.add(body["body"], writer=self.server.writer)
            self.answer(201, self.server.comments[-1])

    def do_PATCH(self) -> None:
        body = self.body()
        if not self.is_refused(self.path):
            (comment,) = [c for c in self.server.comments if self.path.endswith(f"/{c['id']}")]
            comment["body"] = body["body"]
            self.answer(200, comment)

    def do_PUT(self) -> None:
        self.do_PATCH()

    def body(self) -> dict[str, str]:
        return dict(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def is_refused(self, path: str) -> bool:
        self.server.seen.append((self.command, path))
        token = self.headers.get("Authorization") or self.headers.get("PRIVATE-TOKEN")
        if token not in (f"Bearer {TOKEN}", TOKEN):
            self.answer(401, {"message": "Bad credentials"})
            return True
        if self.server.failures:
            self.answer(self.server.failures.pop(0), {"message": "not now"})
            return True
        return False

    def answer(self, status: int, content: Any) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        if status in (301, 302):
            self.send_header("Location", "http://localhost:9/elsewhere")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing on the console."""


@contextmanager
def running() -> Iterator[Forge]:
    """A forge that answers until the block ends."""
    with Forge() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
