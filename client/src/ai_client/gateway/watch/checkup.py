"""The service's answer to `/health`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from ai_client import __version__
from ai_client.configure import health
from ai_client.configure.assembly import transport_options
from ai_client.configure.health import PROBE_TIMEOUT_S, Check
from ai_client.contract.request import Request, Response
from ai_client.errors import DeadlineExceeded, OverloadError
from ai_client.gateway.watch.evidence import Evidence
from ai_client.settings import LoadedKey, Settings

# Many askers cost the upstream one request; a fault is looked at again sooner.
KEPT_S = 10.0
FAULT_KEPT_S = 2.0
# For the upstream's answer, admission by this host's own limits included.
ASKING_S = PROBE_TIMEOUT_S - 1.0

Send = Callable[[Request], Awaitable[Response]]


class _NotAdmittedError(Exception):
    """This host's own limits left no room for the question, which says nothing of the upstream."""


class Checkup:
    """Looks at everything, and keeps what it saw for some seconds.

    A question to the upstream takes a place among the requests. Where `evidence` has seen it answer lately it is
    not asked, and where all places are taken the check does not wait for one: a busy service is a healthy one.
    """

    def __init__(self, evidence: Evidence, *, clock: Callable[[], float]) -> None:
        """`clock`: monotonic, in seconds."""
        self._clock = clock
        self._evidence = evidence
        self._kept: tuple[float, dict[str, Any]] | None = None
        self._looking: asyncio.Future[dict[str, Any]] | None = None
        self.certificate_expires_at_s: float | None = None

    def forget(self) -> None:
        """Look anew at the next question."""
        self._kept = self._looking = None
        self._evidence.forget()

    async def report(self, settings: Settings, key: LoadedKey, send: Send) -> dict[str, Any]:
        """All checks, as `ai_client.configure.health.as_json` gives them. `send` is the client's."""
        now_s = self._clock()
        if self._kept is not None:
            at_s, kept = self._kept
            if now_s - at_s < (KEPT_S if kept["ok"] else FAULT_KEPT_S):
                return kept
        if self._looking is None:
            self._looking = asyncio.ensure_future(self._look(settings, key, send))
            self._looking.add_done_callback(self._looked)
        # One look for all who ask meanwhile; the one who leaves must not end it for the others.
        return await asyncio.shield(self._looking)

    def _looked(self, looking: asyncio.Future[dict[str, Any]]) -> None:
        if self._looking is looking:
            self._looking = None

    async def _look(self, settings: Settings, key: LoadedKey, send: Send) -> dict[str, Any]:
        upstream = self._upstream(settings, send)
        report = await health.examine(settings, key, options=transport_options(settings), upstream=upstream)
        self._note(report["tls"])
        report["service"] = Check(True, f"version {__version__}, pid {os.getpid()}")
        answer = health.as_json(report)
        self._kept = (self._clock(), answer)
        return answer

    async def _upstream(self, settings: Settings, send: Send) -> Check:
        seconds = self._evidence.answered_s_ago()
        if seconds is not None and seconds < KEPT_S:
            return Check(True, f"answered a request {seconds:.0f} s ago")
        try:
            return await health.check_upstream(settings, probe=lambda: _ask(send))
        except _NotAdmittedError:
            return self._unasked()

    def _unasked(self) -> Check:
        """What can be said where the upstream could not be asked."""
        busy = "not asked, because this host's own limits are used up for now"
        fault, seconds = self._evidence.fault, self._evidence.answered_s_ago()
        if fault is not None:
            return Check(False, f"{busy}; the last request ended with {fault}: see the log")
        return Check(True, busy if seconds is None else f"{busy}; it answered {seconds:.0f} s ago")

    async def look_at_certificate(self, settings: Settings) -> None:
        """For the alert on its end."""
        self._note(await health.check_tls(settings, transport_options(settings)))

    def _note(self, tls: Check) -> None:
        self.certificate_expires_at_s = tls.expires_at_s or self.certificate_expires_at_s


async def _ask(send: Send) -> None:
    """Ask for the models. Raises AIClientError, TimeoutError or _NotAdmittedError."""
    try:
        await send(Request(endpoint="models", body={}, priority=0, deadline_s=ASKING_S))
    except OverloadError:
        raise _NotAdmittedError from None
    except DeadlineExceeded as exc:
        if exc.phase == "queue":
            raise _NotAdmittedError from None
        raise TimeoutError from exc
