"""The yardstick: a bare ASGI application on uvicorn that passes requests on with aiohttp, and does nothing else.

`python -m tests.bench.gateway_bare UPSTREAM PORT`
"""

import sys
from typing import Any

import aiohttp
import uvicorn

KEY = "hs_test_0123456789abcdef"


class Bare:
    def __init__(self, upstream: str) -> None:
        self._upstream = upstream.removesuffix("/v1")
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        url = self._upstream + scope["path"]
        async with self._session.post(url, data=body, headers=headers) as answer:
            kind = answer.headers["content-type"].encode()
            if kind.startswith(b"text/event-stream"):
                await send(
                    {
                        "type": "http.response.start",
                        "status": answer.status,
                        "headers": [(b"content-type", kind)],
                    }
                )
                async for chunk in answer.content.iter_any():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
                return
            whole = await answer.read()
        length = (b"content-length", str(len(whole)).encode())
        start = {
            "type": "http.response.start",
            "status": answer.status,
            "headers": [(b"content-type", kind), length],
        }
        await send(start)
        await send({"type": "http.response.body", "body": whole})


if __name__ == "__main__":
    uvicorn.run(
        Bare(sys.argv[1]),
        host="127.0.0.1",
        port=int(sys.argv[2]),
        loop="uvloop",
        http="httptools",
        interface="asgi3",
        lifespan="off",
        access_log=False,
        log_level="error",
    )
