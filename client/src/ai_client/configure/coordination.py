"""From settings to a leased window and who keeps it."""

from __future__ import annotations

import hashlib
import random
import secrets
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from ai_client.client import AIAPIClient
from ai_client.coordination.endpoint import Endpoint
from ai_client.coordination.lease import Lease, Moment
from ai_client.coordination.protocol import Terms
from ai_client.coordination.window import LeasedWindow, floor_of
from ai_client.settings import ConfigError, Settings
from ai_client.settings.ini import Problem

#: In the state folder: a process that starts after one that was coordinated may hold anything, and asks first.
MARK = "coordinated"
#: From the first start without coordination on.
LEAVING_MARK = "was-coordinated"
# What the memory of the window has room for.
_MOST_LENT_RPM = 500_000


def _boot_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Seat:
    """A host's place in a shared quota: its window, and in how many seconds it may ask (None: never)."""

    window: LeasedWindow
    asks_in_s: float | None


def take_seat(settings: Settings, state: Path) -> Seat | None:
    """The place of a host whose quota is coordinated, or was until lately; None of any other.

    What a host lent under other books comes back in a while: one that leaves them, for its own share or for others
    (another engine, account or name), has its floor until then. Under the same books it goes on where it was.
    """
    mark, leaving = state / MARK, state / LEAVING_MARK
    books = books_of(settings)
    held = mark.read_text("utf-8") if mark.exists() else None
    # An empty mark is of a release that wrote no more.
    if held is not None and held not in (books, "" if books else None):
        leaving.touch()
        mark.unlink()
        held = None
    left_s = _left_s(leaving)
    if left_s > 0:
        return Seat(_window_after_leaving(settings), left_s if books else None)
    leaving.unlink(missing_ok=True)
    if not books:
        return None
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text(books, "utf-8")
    return Seat(_window(settings, remembers_share=held is None), 0.0)


def note_joined(settings: Settings, state: Path) -> None:
    """A host that waited for what it had lent is in the books from now on."""
    (state / MARK).write_text(books_of(settings), "utf-8")
    (state / LEAVING_MARK).unlink(missing_ok=True)


def books_of(settings: Settings) -> str:
    """Names the books and this host in them; "" where there are none."""
    coordination = settings.coordination
    if coordination.endpoint is None:
        return ""
    return "\n".join((coordination.endpoint, account_of(settings), host_of(settings)))


def host_of(settings: Settings) -> str:
    """This host's name in the books."""
    return settings.coordination.host or socket.gethostname()


def _left_s(leaving: Path) -> float:
    """Until what was lent is back; more than that where the wall clock jumped back."""
    if not leaving.exists():
        return 0.0
    return min(leaving.stat().st_mtime - time.time(), 0.0) + Terms().static_ms / 1000


def _window_after_leaving(settings: Settings) -> LeasedWindow:
    window = _window(settings, remembers_share=False)
    for lease in window.leases:
        # The old books are not to be asked any more.
        lease.failed(number=lease.begin(window.now(), used=0, demand=0).number)
    return window


def _window(settings: Settings, *, remembers_share: bool) -> LeasedWindow:
    performance = settings.performance
    now = Moment(int(_boot_s() * 1000), int(time.time() * 1000))
    instance = secrets.token_hex(8)

    def lease(share: int) -> Lease:
        return Lease(
            host_of(settings),
            instance,
            share=share,
            floor=floor_of(share),
            now=now,
            remembers_share=remembers_share,
            terms=Terms(),
        )

    tokens = performance.token_limit_tpm
    return LeasedWindow(
        lease(performance.rate_limit_rpm),
        None if tokens is None else lease(tokens),
        boot=_boot_s,
        wall=time.time,
    )


def most_rpm(settings: Settings) -> int:
    """What this host may ever send in a minute: what the memory of its window is for, and all that it asks for."""
    own = settings.performance.rate_limit_rpm
    return own if settings.coordination.endpoint is None else max(own, min(50 * own, _MOST_LENT_RPM))


def account_of(settings: Settings) -> str:
    """Names the quota: as declared, or after the upstream. It tells nothing of a key."""
    declared = settings.coordination.account
    return declared or hashlib.sha256(settings.api.base_url.encode()).hexdigest()[:16]


def endpoint_of(settings: Settings) -> Endpoint:
    """Where the engine is. Raises ConfigError where the password can't be read."""
    coordination = settings.coordination
    assert coordination.endpoint is not None  # noqa: S101 - for the type checker; the caller asked
    password = None if coordination.user is None else password_of(settings)
    return Endpoint(coordination.endpoint, coordination.user, password, coordination.ca_path)


def password_of(settings: Settings) -> str:
    """The password of the engine's user. Raises ConfigError where it can't be read."""
    path = settings.coordination.password_file
    try:
        # Windows' editors begin a text with a mark that is no part of it.
        return path.read_text("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as exc:
        reason = f"{path} can't be read ({type(exc).__name__})"
        remedy = "write the password of the coordination's user there"
        problem = Problem(None, "coordination", "password_file", reason, remedy)
        raise ConfigError(path="the configuration", problems=(problem,)) from exc


@dataclass(slots=True)
class ClientAdmission:
    """What the coordinator needs of a client; `client` may be replaced by a reload."""

    client: AIAPIClient

    def queued(self) -> int:
        """Those who wait for admission."""
        queued: int = self.client.get_stats()["queued"]
        return queued

    def window_changed(self) -> None:
        """More may go now."""
        self.client.window_changed()

    def hold(self, model: str, key_fingerprint: str, pause_s: float) -> None:
        """Another host was told to wait."""
        self.client.hold(model, key_fingerprint, pause_s)


def random_source() -> random.Random:
    """Spreads retries."""
    return random.Random()  # noqa: S311 - jitter, not a secret
