"""The ledger: what each call may cost is set aside before it is sent, and booked exactly when it ends.

Design and durability: docs/adr/0012-ledger-durability.md. In short: reserves and endings of one turn of the event loop
go into one SQLite commit; an ending that waits for the next one is a small note in a file, which outlives a kill as the
commit does and costs a microsecond. Processes of one host share the file.
"""

import asyncio
import sqlite3
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from ai_client.contract.events import EventStream
from ai_client.contract.request import Usage
from ai_client.contract.stores import EntryId, Unbounded
from ai_client.errors import ClientClosedError, LedgerUnavailableError
from ai_client.ledger.allowance import Escrow
from ai_client.ledger.book import (
    Ask,
    CrashHook,
    CrashPoint,
    Ending,
    Granted,
    ReserveRefusal,
    as_error,
    survive,
)
from ai_client.ledger.budgets import BudgetPlan
from ai_client.ledger.entries import EntryInFlight, LedgerStats, WaitingReserve, tags_text
from ai_client.ledger.file import LedgerFile
from ai_client.ledger.late import LateBookings
from ai_client.ledger.owner import Fate
from ai_client.ledger.periods import Calendar, Period
from ai_client.ledger.prices import NANO_PER_DOLLAR, Prices
from ai_client.ledger.schema import MOST_NUSD, LedgerTooNewError
from ai_client.ledger.trouble import Trouble
from ai_client.platform.clock import Clock, SystemClock, Timer
from ai_client.platform.loop import RunningLoop
from ai_client.platform.sqlite_file import is_busy

# An ending's note is written at once; its row may wait so long for company.
_ENDING_WAIT_S: Final = 0.05
_BUSY_WAIT_S: Final = 0.001
_BUSY_AT_MOST_S: Final = 5.0
_REOPEN_EVERY_S: Final = 5.0
_RECOVER_EVERY_S: Final = 5.0
_RETRY_WAIT_S: Final = 1.0
# No call costs more than $10,000, whatever an upstream tells.
_MOST_TOLD_NUSD: Final = 10**13
# What a value that can't be written raises, beside SQLite's own errors.
_BROKEN: Final = (ArithmeticError, TypeError, ValueError, struct.error)
_NO_TAGS: Final[Mapping[str, str]] = MappingProxyType({})
_NO_USAGE: Final = Usage(0, 0)


class SpendLedger:
    """Implements `stores.Ledger` on one SQLite file, for the event loop it is used on."""

    def __init__(
        self,
        path: Path,
        *,
        prices: Prices,
        plan: BudgetPlan | None = None,
        tags: Mapping[str, str] = _NO_TAGS,
        clock: Clock | None = None,
        events: EventStream | None = None,
        escrow: Escrow | None = None,
        crash_hook: CrashHook = survive,
    ) -> None:
        """Opens the file and books what dead processes left open. A file that can't be opened is tried again.

        `tags` go onto every entry, beside the request's own.
        """
        self._path, self._prices = path, prices
        self._plan, self._escrow = plan or BudgetPlan(), escrow or Escrow()
        self._calendar = Calendar(self._plan.timezone)
        self._clock, self._events = clock or SystemClock(), events or EventStream()
        self._crash_hook = crash_hook
        self._tags, self._tags_text = dict(tags), tags_text(tags)
        self._open: dict[EntryId, EntryInFlight] = {}
        self._waiting: list[WaitingReserve] = []
        self._endings: list[Ending] = []
        self._late = LateBookings()
        self._is_scheduled = self._is_closed = False
        self._loop = RunningLoop()
        self._timer: Timer | None = None
        self._unbooked = self._refused = 0
        self._file: LedgerFile | None = None
        self._trouble = Trouble(self._events, self._clock)
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
        nusd = price.upper_bound_nusd(upper)
        open_entry = EntryInFlight(price, tenant, min(nusd, MOST_NUSD), upper.tier, upper.region)
        if self._file is None and not self._reopen():
            return self._unbooked_entry(open_entry)
        text = tags_text({**self._tags, **tags}) if tags else self._tags_text
        ask = Ask(request_id, model, tenant, text, open_entry.reserved_nusd)
        granted: asyncio.Future[EntryId] = self._loop.get().create_future()
        self._waiting.append(WaitingReserve(ask, open_entry, self._clock.monotonic(), granted))
        self._schedule()
        try:
            return await granted
        except asyncio.CancelledError:
            # Granted and cancelled in the same turn of the loop: nobody will ever end this entry but us.
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self.release(granted.result())
            raise

    def is_hard(self, tenant: str) -> bool:
        """Whether a hard budget holds for the tenant."""
        return self._plan.hard_stop and bool(self._plan.of(tenant))

    def unpriced(self, model: str, upper: Usage) -> Unbounded | None:
        """What of such a call has no price."""
        return self._prices.unpriced(model, upper)

    def settle(self, entry: EntryId, usage: Usage) -> float:
        """Books what was used; the cost in US dollars. Of several endings of an entry the first one counts."""
        open_entry = self._open.get(entry)
        if open_entry is None:
            return 0.0
        if not open_entry.price.is_told_by(usage):
            self.billed_unknown(entry)
            return open_entry.reserved_nusd / NANO_PER_DOLLAR
        nusd = open_entry.cost_nusd(usage)
        told = usage.told_nusd
        if told is not None and told <= (
            open_entry.reserved_nusd if self.is_hard(open_entry.tenant) else _MOST_TOLD_NUSD
        ):
            # The bill itself, where it can be true: of a hard budget no more than the most that the call could cost.
            nusd = told
        self._end(entry, Fate.SETTLED, nusd, usage)
        return nusd / NANO_PER_DOLLAR

    def release(self, entry: EntryId) -> None:
        """Nothing was sent, or it was refused unbilled: the reserve is given back."""
        self._end(entry, Fate.RELEASED, 0, _NO_USAGE)

    def billed_unknown(self, entry: EntryId, most: Usage | None = None) -> None:
        """Sent, and no usage came back: the whole reserve is booked, or what `most` costs where that is less."""
        open_entry = self._open.get(entry)
        if open_entry is None:
            return
        nusd = open_entry.reserved_nusd
        if most is not None:
            nusd = min(nusd, open_entry.price.upper_bound_nusd(most))
        self._end(entry, Fate.BILLED_UNKNOWN, nusd, _NO_USAGE)

    def amend(self, entry: EntryId, *, request_id: str, model: str, usage: Usage) -> None:
        """Books what was used of an entry that was booked whole; what was booked as used before stays."""
        self._late.add(entry, request_id, self._prices.of(model), usage)
        self._commit_soon()

    def flush(self) -> None:
        """Commits what waits for company; blocks while another process holds the lock."""
        if self._file is not None:
            with self._file.patience():
                self._commit()

    def stats(self) -> LedgerStats:
        """Counts since the start."""
        is_open = self._file is not None
        return LedgerStats(len(self._open), self._refused, self._unbooked, self._trouble.count, is_open)

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
        ending = open_entry.ending(entry, fate, nusd, usage)
        self._crash_hook(CrashPoint.END_UNWRITTEN)
        if self._file is not None and open_entry.slot is not None:
            try:
                self._file.note(open_entry.slot, ending.as_note())
            except OSError as error:  # the commit will do, unless we are killed before it
                self._trouble.note(error)
        self._crash_hook(CrashPoint.END_WRITTEN)
        self._endings.append(ending)
        self._commit_soon()

    def _commit_soon(self) -> None:
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
        endings, self._waiting, self._endings = self._endings, [], []
        try:
            if self._file is None and waiting:
                self._reopen()  # who was refused by a file that was then abandoned asks the one in its place
            if self._file is not None and (waiting or endings or self._late):
                self._commit_to(self._file, endings, waiting)
        finally:
            self._answer_the_rest(waiting)

    def _commit_to(self, file: LedgerFile, endings: list[Ending], waiting: list[WaitingReserve]) -> None:
        period = self._calendar.period(self._clock.wall())
        try:
            committed = file.commit(
                endings=endings, asks=[each.ask for each in waiting], period=period, now_s=self._clock.wall()
            )
        except sqlite3.Error as error:
            self._endings = endings + self._endings
            self._failed(error, waiting)
            return
        except _BROKEN:
            self._commit_one_by_one(file, endings, waiting, period)
            return
        for each, outcome in zip(waiting, committed.outcomes, strict=True):
            self._answer(each, outcome, period)
        if (trouble := self._late.commit(file.correct)) is not None:
            self._failed(trouble, [])
        for alert in committed.alerts:
            self._events.emit(alert.as_event(self._clock.wall()))
        # Entries come in order of their numbers; those that are not booked have negative ones.
        if not file.look_after(lowest_open=next((entry for entry in self._open if entry > 0), None)):
            self._abandon(file)

    def _answer_the_rest(self, waiting: Sequence[WaitingReserve]) -> None:
        """Whatever became of a commit: who waited for it is answered, or waits for another one."""
        later = set(map(id, self._waiting))
        left = [each for each in waiting if not each.granted.done() and id(each) not in later]
        if left and self._file is not None:
            self._trouble.broke_off()
        for each in left:
            self._let_through(each)

    def _commit_one_by_one(
        self, file: LedgerFile, endings: Sequence[Ending], waiting: Sequence[WaitingReserve], period: Period
    ) -> None:
        """One of them can't be written: it fails alone, and keeps nobody else from being answered and booked."""
        now_s = self._clock.wall()
        for ending in endings:
            try:
                file.commit(endings=[ending], asks=(), period=period, now_s=now_s)
            except sqlite3.Error:
                self._endings.append(ending)
            except _BROKEN as error:
                self._trouble.note(error)
        for each in waiting:
            try:
                committed = file.commit(endings=(), asks=[each.ask], period=period, now_s=now_s)
            except sqlite3.Error:
                self._waiting.append(each)
            except _BROKEN as error:
                refusal = LedgerUnavailableError(
                    f"ledger {self._path}", f"can't write this request ({error})"
                )
                refusal.__cause__ = error
                each.granted.set_exception(refusal)
            else:
                self._answer(each, committed.outcomes[0], period)
        if self._waiting or self._endings:
            self._schedule()

    def _answer(self, waiting: WaitingReserve, outcome: Granted | ReserveRefusal, period: Period) -> None:
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
            waiting.granted.set_exception(as_error(outcome, waiting.ask, period, self._escrow))

    def _failed(self, error: sqlite3.Error, waiting: list[WaitingReserve]) -> None:
        """Nothing of a commit has happened: it waits for a lock, or goes on without the file."""
        now_s = self._clock.monotonic()
        wait_s = _RETRY_WAIT_S
        if is_busy(error):
            late = [each for each in waiting if now_s - each.since_s >= _BUSY_AT_MOST_S]
            self._waiting = [each for each in waiting if each not in late] + self._waiting
            waiting = late
            wait_s = _BUSY_WAIT_S
        else:
            self._trouble.note(error)
        for each in waiting:
            self._let_through(each, error)
        if self._timer is None:
            self._timer = self._clock.call_at(now_s + wait_s, self._commit)

    def _let_through(self, waiting: WaitingReserve, error: sqlite3.Error | None = None) -> None:
        try:
            waiting.granted.set_result(self._unbooked_entry(waiting.open_entry))
        except LedgerUnavailableError as refusal:
            refusal.__cause__ = error
            waiting.granted.set_exception(refusal)

    def _unbooked_entry(self, open_entry: EntryInFlight) -> EntryId:
        """An entry without a file behind it, where no hard budget needs one."""
        self._demand_booking(open_entry.tenant)
        self._unbooked += 1
        entry = EntryId(-self._unbooked)
        self._open[entry] = open_entry
        return entry

    def _demand_booking(self, tenant: str) -> None:
        """Raises LedgerUnavailableError where a hard budget can't be kept without the file."""
        if self.is_hard(tenant):
            self._refused += 1
            reason = f"can't be written ({self._trouble.reason}), and a hard budget needs it"
            raise LedgerUnavailableError(f"ledger {self._path}", reason)

    def _will_ask_again(self, waiting: WaitingReserve) -> bool:
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
                self._trouble.note(error)
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
            plan, hook = self._plan, self._crash_hook
            self._file = LedgerFile(self._path, plan=plan, clock=self._clock, crash_hook=hook)
        except (OSError, sqlite3.Error, LedgerTooNewError) as error:
            self._trouble.note(error)

    def _abandon(self, file: LedgerFile) -> None:
        """The file was deleted or replaced under us: the next reserve opens what is in its place now."""
        self._trouble.note(FileNotFoundError("it was deleted or replaced"))
        for open_entry in self._open.values():
            open_entry.is_booked, open_entry.slot = False, None
        file.close(keep_notes=False)
        self._file = None
        self._tried_at_s = self._clock.monotonic() - _REOPEN_EVERY_S
