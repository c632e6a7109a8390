"""`ai-client batch submit`, `status`, `fetch` and `cancel`: batches that all batch hosts work through together."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from ai_client.batch.output import OutputError
from ai_client.batch.shared.engine import BatchError, batch_of, found, patiently
from ai_client.batch.shared.fetching import Fetching, FetchPlan
from ai_client.batch.shared.sealing import HostKey, SealError, host_keys
from ai_client.batch.shared.status import BatchView, unasked, view
from ai_client.batch.shared.submission import Submission, SubmissionPlan
from ai_client.batch.source import InputError
from ai_client.cli.host import settings_of
from ai_client.cli.shared_batch_arguments import batch_name, name_of
from ai_client.cli.shared_work import host_name
from ai_client.cli.table import table
from ai_client.configure.shared_batches import batch_link, renew, sealing_keys
from ai_client.coordination.batch_link import BatchLink
from ai_client.coordination.batch_protocol import BatchState, BatchTerms
from ai_client.coordination.endpoint import EngineError
from ai_client.settings import ConfigError, KeyMissingError, Settings

EXIT_FAILED_LINES = 1
EXIT_UNUSABLE = 2
EXIT_UNFINISHED = 3
EXIT_NO_ENGINE = 4
EXIT_UNWRITABLE = 5
EXIT_STOPPED = 130
_TOLD_EVERY_S = 5.0
_T = TypeVar("_T")


@dataclass(slots=True)
class _Command:
    """What a command has to work with."""

    options: argparse.Namespace
    settings: Settings
    engine: BatchLink
    _trouble: str = ""

    @property
    def host(self) -> str:
        return host_name(self.settings)

    def keys(self) -> tuple[HostKey, ...]:
        """Raises KeyMissingError."""
        return host_keys(sealing_keys(self.settings, key_file=self.options.key_file, environment=os.environ))

    def hear(self, error: EngineError) -> None:
        """The engine gives no answer, and is asked again: with the password as it is now, which may be a new one."""
        with suppress(ConfigError):
            renew(self.engine, self.settings)
        if not error.is_lasting and str(error) != self._trouble:
            self._trouble = str(error)
            print(f"{error}; trying again for two minutes", file=sys.stderr)

    def say(self, told: dict[str, Any], text: str) -> None:
        print(json.dumps(told) if self.options.json else text)


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    act = {"submit": _submit, "status": _status, "fetch": _fetch, "cancel": _cancel}[options.action]
    try:
        return asyncio.run(_run(options, act))
    except (InputError, OutputError, BatchError, SealError, KeyMissingError) as exc:
        print(exc, file=sys.stderr)
        return EXIT_UNUSABLE
    except EngineError as exc:
        print(exc, file=sys.stderr)
        return EXIT_NO_ENGINE
    except OSError as exc:
        print(
            f"{exc.filename or 'an output'} can't be written ({exc.strerror or exc}); make room there",
            file=sys.stderr,
        )
        return EXIT_UNWRITABLE
    except KeyboardInterrupt:
        print("stopped; run the same command again to continue", file=sys.stderr)
        return EXIT_STOPPED


async def _run(options: argparse.Namespace, act: Callable[[_Command], Coroutine[Any, Any, int]]) -> int:
    settings = settings_of(options)
    link = batch_link(settings)
    try:
        return await act(_Command(options, settings, link))
    finally:
        await link.close()


async def _submit(command: _Command) -> int:
    options = command.options
    plan = SubmissionPlan(
        source=options.source,
        name=_name(options),
        host=command.host,
        keys=command.keys(),
        max_line_bytes=int(command.settings.gateway.max_body_mb * 1_000_000),
        now_s=int(time.time()),
        told=command.hear,
    )
    submission = Submission(plan, command.engine)
    state = await _telling(command, submission.run(), lambda: _share_of(submission, plan.name))
    return _submitted(command, state)


def _submitted(command: _Command, state: BatchState) -> int:
    told = {
        "name": state.name,
        "lines": state.lines,
        "cancelled": state.is_cancelled,
        "fetched": state.is_ended,
    }
    if state.is_cancelled:
        command.say(told, f"{state.name} was cancelled after {state.lines} lines")
        return EXIT_UNFINISHED
    if state.is_ended:
        again = (
            f"to send it again, use another --name, or first `ai-client batch cancel {state.name} --discard`"
        )
        command.say(told, f"{state.name}: {state.lines} lines were submitted and fetched before; {again}")
        return 0
    command.say(
        told, f"{state.name}: {state.lines} lines submitted; next: ai-client batch fetch {state.name} -o FILE"
    )
    return 0


def _name(options: argparse.Namespace) -> str:
    """As given, or after the file. Raises BatchError."""
    if options.name is None:
        return name_of(options.source)
    try:
        return batch_name(options.name)
    except argparse.ArgumentTypeError as exc:
        raise BatchError(f"--name: {exc}") from exc


async def _telling(
    command: _Command, work: Coroutine[Any, Any, _T], how_far: Callable[[], tuple[str, BatchState | None]]
) -> _T:
    """What the work comes to; how far it is, every few seconds, and whether nobody takes the batch's lines."""

    async def tell() -> None:
        while True:
            await asyncio.sleep(_TOLD_EVERY_S)
            far, state = how_far()
            print("\n".join(filter(None, (far, await _unasked(command, state)))), file=sys.stderr)

    telling = asyncio.create_task(tell())
    try:
        return await work
    finally:
        telling.cancel()


async def _unasked(command: _Command, state: BatchState | None) -> str:
    """See `unasked`; "" where it is not known."""
    if state is None:
        return ""
    try:
        flight = await command.engine.flight(state.batch, idle_ms=BatchTerms().idle_ms)
    except EngineError:
        return ""
    return unasked(state.name, flight.unasked_ms // 1000)


def _share_of(submission: Submission, name: str) -> tuple[str, BatchState | None]:
    share = submission.offset / submission.size if submission.size else 1.0
    waits = "; the engine has no room for more, waiting for `batch fetch`" if submission.is_waiting else ""
    return f"{name}: {share:.0%} submitted{waits}", submission.state


def _lines_of(fetching: Fetching, name: str) -> tuple[str, BatchState | None]:
    tally, state = fetching.tally, fetching.state
    lines = "" if state is None else f" of {state.lines}"
    return f"{name}: {tally.answered + tally.failed + tally.rejected}{lines} lines fetched", state


async def _status(command: _Command) -> int:
    engine, options = command.engine, command.options
    index = await patiently(engine.index, absence_s=0)
    if options.name is not None:
        index = {options.name: batch_of(index, options.name)}
    views = [each for _, batch in sorted(index.items()) if (each := await view(engine, batch)) is not None]
    told = [*_as_table(views), *(unasked(each.name, each.unasked_s) for each in views)]
    text = "\n".join(filter(None, told)) if views else "no shared batches"
    command.say({"batches": [each.as_json() for each in views]}, text)
    return 0


def _as_table(views: list[BatchView]) -> list[str]:
    heads = ("batch", "state", "lines", "done", "failed", "in flight", "fetched", "MB", "hosts")
    rows = [
        (
            each.name,
            each.stage,
            *(str(number) for number in (each.lines, each.done, each.failed, each.in_flight, each.fetched)),
            f"{each.size_bytes / 1e6:.1f}",
            ", ".join(each.hosts) or "-",
        )
        for each in views
    ]
    return [table(heads, rows, left=2)]


async def _fetch(command: _Command) -> int:
    options = command.options
    plan = FetchPlan(
        name=options.name,
        output=options.output,
        errors=options.errors or options.output.with_name(options.output.name + ".errors"),
        host=command.host,
        keys=command.keys(),
        waits=options.wait,
        takes_over=options.take_over,
        told=command.hear,
    )
    fetching = Fetching(plan, command.engine)
    await _telling(command, fetching.run(), lambda: _lines_of(fetching, plan.name))
    tally = fetching.tally
    unwell = tally.failed + tally.rejected
    told = {
        "name": plan.name,
        "complete": fetching.is_complete,
        "answered": tally.answered,
        "failed": tally.failed,
        "rejected": tally.rejected,
        "cost_usd": round(tally.cost_usd, 9),
    }
    rest = "" if fetching.is_complete else "; some results are still to come: run it again, or with --wait"
    text = f"{tally.answered} answered, {unwell} failed, ${tally.cost_usd:.6f}: {plan.output}{rest}"
    command.say(told, text)
    if unwell and not options.json:
        print(f"failures are in {plan.errors}", file=sys.stderr)
    if not fetching.is_complete:
        if warning := await _unasked(command, fetching.state):
            print(warning, file=sys.stderr)
        return EXIT_UNFINISHED
    return EXIT_FAILED_LINES if unwell else 0


async def _cancel(command: _Command) -> int:
    engine, discards = command.engine, command.options.discard
    state = await found(engine, command.options.name, told=command.hear)
    await patiently(lambda: engine.cancel(state.batch), told=command.hear)
    if discards:
        await patiently(lambda: engine.discard(state.batch, state.name), told=command.hear)
    told = {"name": state.name, "discarded": discards, "results": state.results, "fetched": state.is_ended}
    if discards:
        text = f"{state.name} is discarded"
    elif state.is_ended:
        text = f"nothing of {state.name} is left to cancel: all of it is answered and fetched"
    else:
        text = f"{state.name} is cancelled; {state.results} results can be fetched"
    command.say(told, text)
    return 0
