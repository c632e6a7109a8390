"""The ledger: what each call may cost is set aside before it is sent, and booked exactly when it ends.

Design and durability: docs/adr/0012-ledger-durability.md. In short: reserves and endings of one turn of the event loop
go into one SQLite commit; an ending that waits for the next one is a small note in a file, which outlives a kill as the
commit does and costs a microsecond. Processes of one host share the file.
"""

import asyncio
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from ai_client.budgets import BudgetPlan
from ai_client.clock import Clock, SystemClock, Timer
from ai_client.errors import ClientClosedError, LedgerUnavailableError
from ai_client.events import BudgetAlert, EventStream, StoreDegraded
from ai_client.ledger_book import (
    Alert,
    Ask,
    CrashHook,
    CrashPoint,
    Ending,
    Granted,
    Refusal,
    as_error,
    scope_name,
    survive,
)
from ai_client.ledger_file import LedgerFile
from ai_client.ledger_owner import Fate, Note
from ai_client.ledger_schema import LedgerTooNewError
from ai_client.periods import Calendar, Period
from ai_client.ports import EntryId
from ai_client.prices import NANO_PER_DOLLAR, Price, Prices
from ai_client.request import Usage
from ai_client.running_loop import RunningLoop
from ai_client.sqlite_file import is_busy

# An ending's note is written at once; its row may wait so long for company.
_ENDING_WAIT_S: Final = 0.05
_BUSY_WAIT_S: Final = 0.001
_BUSY_AT_MOST_S: Final = 5.0
_REOPEN_EVERY_S: Final = 5.0
_RECOVER_EVERY_S: Final = 5.0
_RETRY_WAIT_S: Final = 1.0
_NO_TAGS: Final[Mapping[str, str]] = MappingProxyType({})
_NO_USAGE: Final = Usage(0, 0)


@dataclass(frozen=True, slots=True)
class LedgerStats:
    """Counts since the start. `unbooked` entries were let through while the file could not be written."""

    open_entries: int
    refused: int
    unbooked: int
    errors: int


@dataclass(slots=True)
class _Open:
    """An entry in flight. Without a file behind it (`is_booked` false) only its price is of use."""

    price: Price
    tenant: str
    reserved_nusd: int
    day: str = ""
    slot: int | None = None
    is_booked: bool = False


@dataclass(slots=True)
class _Waiting:
    ask: Ask
    open_entry: _Open
    since_s: float
    granted: asyncio.Future[EntryId]
    #: A refusal is believed once dead owners have given back what they held.
    is_second_try: bool = False


class SpendLedger:
    """Implements `ports.Ledger` on one SQLite file, for the event loop it is used on."""

    def __init__(
        self,
        path: Path,
        *,
        prices: Prices,
        plan: BudgetPlan | None = None,
        tags: Mapping[str, str] = _NO_TAGS,
        clock: Clock | None = None,
        events: EventStream | None = None,
        crash_hook: CrashHook = survive,
    ) -> None:
        """Opens the file and books what dead processes left open. A file that can't be opened is tried again.

        `tags` go onto every entry, beside the request's own.
        """
        self._path = path
        self._prices = prices
        self._plan = plan or BudgetPlan()
        self._calendar = Calendar(self._plan.timezone)
        self._clock = clock or SystemClock()
        self._events = events or EventStream()
        self._crash_hook = crash_hook
        self._tags, self._tags_text = dict(tags), _tags_text(tags)
        self._open: dict[EntryId, _Open] = {}
        self._waiting: list[_Waiting] = []
        self._endings: list[Ending] = []
        self._is_scheduled = False
        self._loop = RunningLoop()
        self._timer: Timer | None = None
        self._unbooked = self._refused = self._errors = 0
        self._is_told = self._is_closed = False
        self._trouble = "it was never opened"
        self._file: LedgerFile | None = None
        self._tried_at_s = self._recovered_at_s = self._clock.monotonic()
        self._try_open()

    async def reserve(
        self,
        *,
        request_id: str,
        model: str,
        tenant: str,
        upper: Usage,
        tags: Mapping[str, str] = _NO_TAGS,
    ) -> EntryId:
        """Sets aside what `upper` costs at most. Raises BudgetExceeded, LedgerUnavailableError.

        When it returns, the reserve outlives the death of this process: an entry that nothing more is heard of is
        booked whole, since its request may have been sent.
        """
        price = self._prices.of(model)
        nusd = price.upper_bound_nusd(input_tokens=upper.input_tokens, output_tokens=upper.output_tokens)
        open_entry = _Open(price, tenant, nusd)
        if self._file is None and not self._reopen():
            return self._unbooked_entry(open_entry)
        tags_text = _tags_text({**self._tags, **tags}) if tags else self._tags_text
        ask = Ask(request_id, model, tenant, tags_text, nusd)
        granted: asyncio.Future[EntryId] = self._loop.get().create_future()
        self._waiting.append(_Waiting(ask, open_entry, self._clock.monotonic(), granted))
        self._schedule()
        try:
            return await granted
        except asyncio.CancelledError:
            # Granted and cancelled in the same turn of the loop: nobody will ever end this entry but us.
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self.release(granted.result())
            raise

    def settle(self, entry: EntryId, usage: Usage) -> float:
        """Books what was used; the cost in US dollars. Of several endings of an entry the first one counts."""
        open_entry = self._open.get(entry)
        if open_entry is None:
            return 0.0
        nusd = open_entry.price.cost_nusd(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_input_tokens=usage.cached_input_tokens,
        )
        self._end(entry, Fate.SETTLED, nusd, usage)
        return nusd / NANO_PER_DOLLAR

    def release(self, entry: EntryId) -> None:
        """Nothing was sent, or it was refused unbilled: the reserve is given back."""
        self._end(entry, Fate.RELEASED, 0, _NO_USAGE)

    def billed_unknown(self, entry: EntryId) -> None:
        """Sent, and no usage came back: the whole reserve is booked."""
        open_entry = self._open.get(entry)
        if open_entry is not None:
            self._end(entry, Fate.BILLED_UNKNOWN, open_entry.reserved_nusd, _NO_USAGE)

    def flush(self) -> None:
        """Commits what waits for company; blocks while another process holds the lock."""
        if self._file is not None:
            with self._file.patience():
                self._commit()

    def stats(self) -> LedgerStats:
        """Counts since the start."""
        return LedgerStats(len(self._open), self._refused, self._unbooked, self._errors)

    def close(self) -> None:
        """Books every ending and closes the file. Entries still open are left to the next start's recovery."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        self.flush()
        for waiting in self._waiting:
            if not waiting.granted.done():
                waiting.granted.set_exception(ClientClosedError("ledger", "was closed"))
        self._waiting.clear()
        if self._file is not None:
            self._file.close(keep_notes=bool(self._open) or bool(self._endings))
            self._file = None

    def _end(self, entry: EntryId, fate: Fate, nusd: int, usage: Usage) -> None:
        open_entry = self._open.pop(entry, None)
        if open_entry is None or not open_entry.is_booked:
            return
        counts = (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens)
        self._crash_hook(CrashPoint.END_UNWRITTEN)
        if self._file is not None and open_entry.slot is not None:
            try:
                self._file.note(open_entry.slot, Note(entry, fate, nusd, *counts))
            except OSError as error:  # the commit will do, unless we are killed before it
                self._note_trouble(error)
        self._crash_hook(CrashPoint.END_WRITTEN)
        self._endings.append(
            Ending(
                entry,
                open_entry.day,
                open_entry.tenant,
                open_entry.reserved_nusd,
                fate,
                nusd,
                *counts,
                slot=open_entry.slot,
            )
        )
        if self._timer is None and not self._is_scheduled:
            self._timer = self._clock.call_at(self._clock.monotonic() + _ENDING_WAIT_S, self._commit)

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.get().call_soon(self._commit)

    def _commit(self) -> None:
        self._is_scheduled = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting = [each for each in self._waiting if not each.granted.done()]
        file, endings = self._file, self._endings
        self._waiting, self._endings = [], []
        if file is None or not (waiting or endings):
            return
        period = self._calendar.period(self._clock.wall())
        try:
            committed = file.commit(
                endings=endings, asks=[each.ask for each in waiting], period=period, now_s=self._clock.wall()
            )
        except sqlite3.Error as error:
            self._endings = endings + self._endings
            self._failed(error, waiting)
            return
        for each, outcome in zip(waiting, committed.outcomes, strict=True):
            self._answer(each, outcome, period)
        for alert in committed.alerts:
            self._tell_alert(alert)
        # Entries come in order of their numbers; those that are not booked have negative ones.
        if not file.look_after(lowest_open=next((entry for entry in self._open if entry > 0), None)):
            self._abandon(file)

    def _answer(self, waiting: _Waiting, outcome: Granted | Refusal, period: Period) -> None:
        if isinstance(outcome, Granted):
            entry = EntryId(outcome.entry)
            waiting.open_entry.day = period.day
            waiting.open_entry.slot = outcome.slot
            waiting.open_entry.is_booked = True
            self._open[entry] = waiting.open_entry
            waiting.granted.set_result(entry)
        elif not waiting.is_second_try and self._will_ask_again(waiting):
            self._waiting.append(waiting)
        else:
            self._refused += 1
            waiting.granted.set_exception(as_error(outcome, waiting.ask, period))

    def _failed(self, error: sqlite3.Error, waiting: list[_Waiting]) -> None:
        """Nothing of a commit has happened: it waits for a lock, or goes on without the file."""
        now_s = self._clock.monotonic()
        wait_s = _RETRY_WAIT_S
        if is_busy(error):
            late = [each for each in waiting if now_s - each.since_s >= _BUSY_AT_MOST_S]
            self._waiting = [each for each in waiting if each not in late] + self._waiting
            waiting = late
            wait_s = _BUSY_WAIT_S
        else:
            self._note_trouble(error)
        for each in waiting:
            self._let_through(each, error)
        if self._timer is None:
            self._timer = self._clock.call_at(now_s + wait_s, self._commit)

    def _let_through(self, waiting: _Waiting, error: sqlite3.Error) -> None:
        try:
            waiting.granted.set_result(self._unbooked_entry(waiting.open_entry))
        except LedgerUnavailableError as refusal:
            refusal.__cause__ = error
            waiting.granted.set_exception(refusal)

    def _unbooked_entry(self, open_entry: _Open) -> EntryId:
        """An entry without a file behind it, where no hard budget needs one."""
        self._demand_booking(open_entry.tenant)
        self._unbooked += 1
        entry = EntryId(-self._unbooked)
        self._open[entry] = open_entry
        return entry

    def _demand_booking(self, tenant: str) -> None:
        """Raises LedgerUnavailableError where a hard budget can't be kept without the file."""
        if self._plan.hard_stop and self._plan.of(tenant):
            self._refused += 1
            raise LedgerUnavailableError(
                f"ledger {self._path}", f"can't be written ({self._trouble}), and a hard budget needs it"
            )

    def _will_ask_again(self, waiting: _Waiting) -> bool:
        """Looks for dead owners, which may have held what `waiting` was refused for: not more often than every few
        seconds. Where the file is busy that comes a little later; it must not be left out for that."""
        now_s = self._clock.monotonic()
        if self._file is None:
            return False
        if now_s - self._recovered_at_s >= _RECOVER_EVERY_S:
            try:
                self._file.recover()
            except sqlite3.Error as error:
                if is_busy(error) and now_s - waiting.since_s < _BUSY_AT_MOST_S:
                    if self._timer is None:
                        self._timer = self._clock.call_at(now_s + _BUSY_WAIT_S, self._commit)
                    return True
                self._recovered_at_s = now_s
                self._note_trouble(error)
                return False
            self._recovered_at_s = now_s
        elif waiting.since_s > self._recovered_at_s:
            return False
        # It asked before the dead were looked for, perhaps for another one of its commit.
        waiting.is_second_try = True
        self._schedule()
        return True

    def _reopen(self) -> bool:
        now_s = self._clock.monotonic()
        if self._is_closed or now_s - self._tried_at_s < _REOPEN_EVERY_S:
            return False
        self._tried_at_s = now_s
        self._try_open()
        return self._file is not None

    def _try_open(self) -> None:
        try:
            self._file = LedgerFile(
                self._path, plan=self._plan, clock=self._clock, crash_hook=self._crash_hook
            )
        except (OSError, sqlite3.Error, LedgerTooNewError) as error:
            self._note_trouble(error)

    def _abandon(self, file: LedgerFile) -> None:
        """The file was deleted or replaced under us: the next reserve opens what is in its place now."""
        self._note_trouble(FileNotFoundError("it was deleted or replaced"))
        for open_entry in self._open.values():
            open_entry.is_booked = False
            open_entry.slot = None
        file.close(keep_notes=False)
        self._file = None
        self._tried_at_s = self._clock.monotonic() - _REOPEN_EVERY_S

    def _note_trouble(self, error: Exception) -> None:
        """Each trouble is counted, the first one is told."""
        self._errors += 1
        self._trouble = f"{type(error).__name__}: {error}"
        if not self._is_told:
            self._is_told = True
            self._events.emit(StoreDegraded(at=self._clock.wall(), store="ledger", reason=self._trouble))

    def _tell_alert(self, alert: Alert) -> None:
        self._events.emit(
            BudgetAlert(
                at=self._clock.wall(),
                scope=scope_name(alert.budget.scope),
                period=alert.period,
                limit_usd=alert.budget.limit_nusd / NANO_PER_DOLLAR,
                spent_usd=alert.spent_nusd / NANO_PER_DOLLAR,
                threshold=alert.share,
            )
        )


def _tags_text(tags: Mapping[str, str]) -> str:
    return json.dumps(dict(tags), sort_keys=True, separators=(",", ":"))
