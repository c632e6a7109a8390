"""Cases of the real plugin, observed of another one: run through the engine, or taken from what was kept."""

from __future__ import annotations

import hashlib
import json
import os
from importlib.metadata import version
from pathlib import Path

from tests.engine import recorder
from tests.engine.conftest import Engine

RECORDED = Path(__file__).parent / "plugin_cases" / "recorded-1.2.1.json"
CASES: dict[str, list[recorder.Record]] = json.loads(RECORDED.read_text())
EXACTLY_EQUAL = ("exit", "ops", "ran", "outputs")
PARALLEL_CASES = 3


def facts(records: list[recorder.Record]) -> list[dict[str, object]]:
    """What must be equal; the lines of the two streams may come in any order."""
    return [
        {key: record.get(key) for key in EXACTLY_EQUAL} | {"said": sorted(record.get("diagnostics", []))}
        for record in records
    ]


def digest_of(engine: Engine, *plugin_sources: Path, more: str = "") -> str:
    """Names a run: the same digest gives the same record."""
    total = hashlib.sha256(f"{version('pulumi')} {version('pulumi-command')} {more}".encode())
    sources = [RECORDED, Path(recorder.__file__), *sorted(recorder.PROGRAM.glob("*.*"))]
    for path in [engine.cli, *(plugin_sources or [engine.plugin]), *sources]:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def kept_at(digest: str, *, case: str) -> Path:
    """Where the observation of a case is kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ai-client-fleet"
    return cache / "plugin-cases" / digest / f"{case}.json"


def take(kept: Path) -> list[recorder.Record] | None:
    """What was observed before, if it was."""
    if not kept.exists():
        return None
    observed: list[recorder.Record] = json.loads(kept.read_text())
    return observed


def keep(kept: Path, observed: list[recorder.Record]) -> None:
    """Keeps an observation, never the verdict on it."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(observed))
    partial.rename(kept)


def run_case(case: str, *, path: str, empty_stack: Path, folder: Path) -> list[recorder.Record]:
    """Runs a case in a stack of its own below `folder`."""
    workspace = recorder.open_workspace(folder, path=path, template=empty_stack)
    return recorder.record_case(workspace, (recorded["step"] for recorded in CASES[case]))
