"""The plugin on PATH behaves as the real one did when it was recorded, case by case."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.engine import recorder
from tests.engine.conftest import Engine

pytestmark = pytest.mark.engine

RECORDED = Path(__file__).parent / "plugin_cases" / "recorded-1.2.1.json"
CASES: dict[str, list[recorder.Record]] = json.loads(RECORDED.read_text())
PARALLEL_CASES = 3
EXACTLY_EQUAL = ("exit", "ops", "ran", "outputs")


def digest_of(engine: Engine) -> str:
    """Names a run: the same digest gives the same record."""
    total = hashlib.sha256(f"{version('pulumi')} {version('pulumi-command')}".encode())
    sources = [RECORDED, Path(recorder.__file__), *sorted(recorder.PROGRAM.glob("*.*"))]
    for path in [engine.cli, engine.plugin, *sources]:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def observe(
    name: str, *, engine: Engine, empty_stack: Path, folder: Path, kept: Path
) -> list[recorder.Record]:
    """Runs a case, or takes what came of it when the same was run before.

    What differs from the record is not kept, so that a disturbed run is not remembered as the plugin's fault.
    """
    if kept.exists():
        observed: list[recorder.Record] = json.loads(kept.read_text())
        return observed
    workspace = recorder.open_workspace(folder, path=engine.path, template=empty_stack)
    observed = recorder.record_case(workspace, (recorded["step"] for recorded in CASES[name]))
    if _facts(observed) == _facts(CASES[name]):
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(observed))
        partial.rename(kept)
    return observed


@pytest.fixture(scope="session")
def observed_cases(
    request: pytest.FixtureRequest,
    engine: Engine,
    empty_stack: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Mapping[str, Future[list[recorder.Record]]]]:
    """The cases that this session asks for, a few at a time: each is several engine runs."""
    wanted = {item.callspec.params["name"] for item in request.session.items if _is_case(item)}
    folder = tmp_path_factory.mktemp("cases")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ai-client-fleet"
    kept = cache / "plugin-cases" / digest_of(engine)
    with ThreadPoolExecutor(PARALLEL_CASES) as pool:
        yield {
            name: pool.submit(
                observe,
                name,
                engine=engine,
                empty_stack=empty_stack,
                folder=folder / name,
                kept=kept / f"{name}.json",
            )
            for name in CASES
            if name in wanted
        }
        pool.shutdown(cancel_futures=True)


def _is_case(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and item.path == Path(__file__) and hasattr(item, "callspec")


@pytest.mark.parametrize("name", CASES)
def test_the_plugin_does_what_the_real_one_did(
    name: str, observed_cases: Mapping[str, Future[list[recorder.Record]]]
) -> None:
    """Exit, operations, what ran, and outputs are equal; diagnostics too, in any order of the two streams."""
    assert _facts(observed_cases[name].result()) == _facts(CASES[name])


def _facts(records: list[recorder.Record]) -> list[dict[str, object]]:
    return [
        {key: record.get(key) for key in EXACTLY_EQUAL} | {"said": sorted(record.get("diagnostics", []))}
        for record in records
    ]


def test_the_record_is_whole() -> None:
    """All 46 cases are there, so that a shortened file cannot pass for the real plugin's behaviour."""
    assert len(CASES) == 46
