"""A provider whose streams last until a file appears: then they come to their end at once.

    python -m tests.ansible.held_provider HOST PORT FILE

Each stream has as many pieces as were asked for, whenever it ends.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

from ai_client.testing import Simulator, SimulatorOptions

LATENCY_S = 0.05
TOKEN_S = 0.06
LOOK_S = 0.1


async def main(host: str, port: int, ends: Path) -> None:
    """Serve until it is killed."""
    options = SimulatorOptions(host=host, port=port, latency_ms=LATENCY_S * 1000, token_ms=TOKEN_S * 1000)
    async with Simulator(options) as simulator:
        while True:
            await asyncio.sleep(LOOK_S)
            if await asyncio.to_thread(ends.exists):
                simulator.options = replace(options, token_ms=0.0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
