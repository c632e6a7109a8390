"""The plugin on PATH behaves as the real one did when it was recorded, case by case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.engine.conftest import Engine
from tests.engine.observed import CASES, PARALLEL_CASES, digest_of, facts, keep, kept_at, run_case, take
from tests.engine.recorder import Record

pytestmark = pytest.mark.engine


def observe(name: str, *, engine: Engine, empty_stack: Path, folder: Path, kept: Path) -> list[Record]:
    """Runs a case, or takes what came of it when the same was run before.

    What differs from the record is not kept, so that a disturbed run is not remembered as the plugin's fault.
    """
    observed = take(kept)
    if observed is None:
        observed = run_case(name, path=engine.path, empty_stack=empty_stack, folder=folder)
        if facts(observed) == facts(CASES[name]):
            keep(kept, observed)
    return observed


@pytest.fixture(scope="session")
def observed_cases(
    request: pytest.FixtureRequest,
    engine: Engine,
    empty_stack: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Mapping[str, Future[list[Record]]]]:
    """The cases that this session asks for, a few at a time: each is several engine runs."""
    wanted = {item.callspec.params["name"] for item in request.session.items if _is_case(item)}
    folder = tmp_path_factory.mktemp("cases")
    digest = digest_of(engine)
    with ThreadPoolExecutor(PARALLEL_CASES) as pool:
        yield {
            name: pool.submit(
                observe,
                name,
                engine=engine,
                empty_stack=empty_stack,
                folder=folder / name,
                kept=kept_at(digest, case=name),
            )
            for name in CASES
            if name in wanted
        }
        pool.shutdown(cancel_futures=True)


def _is_case(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and item.path == Path(__file__) and hasattr(item, "callspec")


@pytest.mark.parametrize("name", CASES)
def test_the_plugin_does_what_the_real_one_did(
    name: str, observed_cases: Mapping[str, Future[list[Record]]]
) -> None:
    """Exit, operations, what ran, and outputs are equal; diagnostics too, in any order of the two streams."""
    assert facts(observed_cases[name].result()) == facts(CASES[name])


def test_the_record_is_whole() -> None:
    """All 46 cases are there, so that a shortened file cannot pass for the real plugin's behaviour."""
    assert len(CASES) == 46
