"""On batch hosts the service has a child that works through the spool and shared batches: a process of its own, so that
reading ten gigabytes of requests never keeps a caller waiting."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

from ai_client.platform import json_log

RESTART_S = 5.0
STOP_S = 10.0

_log = logging.getLogger(__name__)


class SpoolChild:
    """Starts `ai-client batch serve`, and again where it ends."""

    def __init__(self, config: Path, *, key_file: Path | None) -> None:
        # Of this process' own release, whatever is in place meanwhile: the package's folder is given by its path.
        self._arguments = (
            *(sys.executable, "-I", "-S", "-c", _PROGRAM, *sys.path),
            *("--", "batch", "serve", "--config", str(config)),
            *(() if key_file is None else ("--key-file", str(key_file))),
        )
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._keep_running())

    async def stop(self) -> None:
        """End it in an orderly way: what is under way is answered first, for some seconds."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _keep_running(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
        while True:
            process = await asyncio.create_subprocess_exec(*self._arguments, env=environment)
            try:
                code = await process.wait()
            except asyncio.CancelledError:
                await _end(process)
                raise
            _log.warning("spool_worker_ended", extra=json_log.fields({"code": code}))
            await asyncio.sleep(RESTART_S)


# Everything before `--` is where to find modules, as this process does.
_PROGRAM = """\
import sys
mark = sys.argv.index("--")
sys.path[:] = sys.argv[1:mark]
from ai_client.cli import main
sys.exit(main(sys.argv[mark + 1:]))
"""


async def _end(process: asyncio.subprocess.Process) -> None:
    process.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
