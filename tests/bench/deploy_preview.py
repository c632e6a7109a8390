"""What a look at every host adds to a preview: the same stack without and with probes, on hosts as declared."""

import tempfile
import time
from pathlib import Path

from tests.bench.deploy_fleet import KEY, NAME, declaration
from tests.fleet.clones import Clone, clone

WITH, WITHOUT = "preview with probes", "preview without probes"


def previews_s(hosts: int, *, key: str = f"{KEY}2") -> dict[str, float]:
    """Wall seconds of a preview of the booted fleet, without and with probes, by fresh connections.

    No resource of the stack is made: what is previewed is what the hosts are.
    """
    declared = {**declaration(hosts), "vars": {"ai_max_retries": 4}}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        project = clone(Path(folder) / "project", state=Path(folder) / "state", stack=NAME)
        project.pulumi("stack", "init", NAME)
        project.pulumi("config", "set", "--secret", "apiKey", "--stack", NAME, stdin=key)
        walls_s = {}
        for what, probe in ((WITHOUT, False), (WITH, True)):
            project.configure({**declared, "probe": probe})
            walls_s[what] = _preview_s(project)
    return walls_s


def _preview_s(project: Clone) -> float:
    started_s = time.monotonic()
    project.pulumi("preview", "--stack", NAME)
    return time.monotonic() - started_s
