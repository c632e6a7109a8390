"""A provider that notes when each request arrived: `python -m …upstream HOST PORT FILE`.

A line a request: its time on this machine's monotonic clock, path and status. A line that begins with `late` has when
this process did not run though it had to, and for how long: what came meanwhile was noted that much too late.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from ai_client.testing import Simulator, SimulatorOptions

_LOOK_S = 0.02
_WORTH_NOTING_S = 0.02


async def main(host: str, port: int, path: Path) -> None:
    """Serve until it is killed."""
    async with Simulator(SimulatorOptions(host=host, port=port)) as simulator:
        with path.open("a", buffering=1) as file:
            while True:
                due_s = time.monotonic() + _LOOK_S
                await asyncio.sleep(_LOOK_S)
                while simulator.arrivals:
                    arrival = simulator.arrivals.popleft()
                    file.write(f"{arrival.at_s:.6f} {arrival.path} {arrival.status}\n")
                late_s = time.monotonic() - due_s
                if late_s > _WORTH_NOTING_S:
                    file.write(f"late {due_s:.6f} {late_s:.6f}\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
