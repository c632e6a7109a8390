"""A way to the engine on which each answer takes longer: `python -m …slow ADDRESS PORT TARGET_PORT DELAY_S`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

_PIECE_BYTES = 65_536


async def carry(reader: asyncio.StreamReader, write: Callable[[bytes], object]) -> None:
    """All that comes, until it ends."""
    while piece := await reader.read(_PIECE_BYTES):
        write(piece)


@asynccontextmanager
async def slow_way(
    address: str, port: int, *, target_port: int, delay_s: float
) -> AsyncIterator[asyncio.Server]:
    """What the target says comes later by `delay_s`; what is said to it, at once."""
    loop = asyncio.get_running_loop()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_engine, to_engine = await asyncio.open_connection(address, target_port)

        def later(piece: bytes) -> None:
            loop.call_later(delay_s, writer.write, piece)

        ways = [
            asyncio.create_task(carry(reader, to_engine.write)),
            asyncio.create_task(carry(from_engine, later)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            to_engine.close()
            writer.close()

    async with await asyncio.start_server(serve, address, port) as server:
        yield server


async def main(address: str, port: int, target_port: int, delay_s: float) -> None:
    """Serve until it is killed."""
    async with slow_way(address, port, target_port=target_port, delay_s=delay_s) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
