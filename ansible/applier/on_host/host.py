"""The host beyond its files: users, systemd, programs, the clock. Tests put another one in its place."""

import grp
import json
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from . import places
from .distribution import SELINUX, no_login, systemd_version
from .errors import ApplyError
from .items import Ids
from .service_socket import Answer, ask, converse
from .tree import Tree

_PROPERTIES = ("Id", "LoadState", "ActiveState", "NeedDaemonReload")
# The longest that a service may take to drain its streams before systemd ends it.
_SYSTEMCTL_TIMEOUT_S = 180
_PROGRAM_TIMEOUT_S = 60
_HTTP_OK = 200
# The service took note of a new configuration that needs a new process.
RESTART_NEEDED = 3
# How long the process of a release that failed may go on with requests that it has begun.
_LEAVES_WITHIN_S = 20
_LOOK_AGAIN_S = 0.05
_QUESTION_TIMEOUT_S = 10.0
# Answered without the upstream, which costs nothing: no answer to it is in the cache.
_QUESTION = '{"messages": [{"role": "user", "content": "Does the gateway answer?"}], "max_tokens": 1}'
_QUESTION_HEADERS = "Content-Type: application/json\r\nX-AI-Cache: only-if-cached\r\n"
_REPORT_TIMEOUT_S = 20.0
# The group of nobody, by number: its name differs between systems.
_NO_GROUP = "65534"
# Programs are found here, whatever sudo or a login would have them look in.
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


class UnitState(NamedTuple):
    """What systemd says of a unit."""

    load: str
    active: str
    needs_reload: bool

    @property
    def is_running(self) -> bool:
        """Whether the unit does its work now."""
        return self.active in ("active", "reloading")

    @property
    def is_masked(self) -> bool:
        """Whether it is masked, in `/run` too."""
        return self.load == "masked"


UNKNOWN_UNIT = UnitState("not-found", "inactive", needs_reload=False)


class Account(NamedTuple):
    """An account as the system knows it."""

    home: str
    shell: str


class Outcome(NamedTuple):
    """How a program ended."""

    status: int
    output: str

    @property
    def tail(self) -> str:
        """The end of what it said, on one line."""
        return " ".join(self.output.split())[-400:]


class Host:
    """The real host."""

    def reached(self, point: str) -> None:
        """Called before each step that changes something; tests end the process here."""

    def now(self) -> str:
        """The time in UTC, as `2026-01-31T12:00:00Z`."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    def clock_s(self) -> float:
        """Seconds that only go forward."""
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        """Lets time pass between two questions."""
        time.sleep(seconds)

    def machine(self) -> str:
        """The processor, such as `x86_64`."""
        return os.uname().machine

    def tag(self) -> str:
        """The tree for the host's own Python, such as `cp311-x86_64`; `cp313t-…` of a build without the GIL."""
        threaded = "t" if "t" in sys.abiflags else ""
        return f"cp{sys.version_info.major}{sys.version_info.minor}{threaded}-{self.machine()}"

    def systemd(self) -> int:
        """The version of systemd."""
        return systemd_version(self.run("systemctl", "--version").output)

    def glibc(self) -> str:
        """The version of the C library; empty where it is another one."""
        name, version = _libc()
        return version if name == "glibc" else ""

    def python(self) -> str:
        """The interpreter that the client runs under."""
        return sys.executable

    def ids(self) -> Ids:
        """The numbers of our user and group."""
        return Ids(_uid(places.USER), _gid(places.USER))

    def account(self) -> "Account | None":
        """The account of our user's name; None where there is none."""
        try:
            found = pwd.getpwnam(places.USER)
        except KeyError:
            return None
        return Account(found.pw_dir, found.pw_shell)

    def add_identity(self, ids: Ids) -> None:
        """Makes the system group and user, or what is missing of them."""
        if ids.gid is None:
            self._must("groupadd", "--system", places.USER)
        if ids.uid is None:
            self._must(
                *(
                    "useradd",
                    "--system",
                    "--gid",
                    places.USER,
                    "--no-create-home",
                    "--home-dir",
                    "/nonexistent",
                ),
                *("--shell", no_login(Tree()), places.USER),
            )

    def remove_identity(self, ids: Ids, *, user: bool = True, group: bool = True) -> None:
        """Removes user and group; `userdel` takes the user's own group along, unless that stays."""
        if user and ids.uid is not None:
            if not group:
                self._must("usermod", "--gid", _NO_GROUP, places.USER)
            self._must("userdel", places.USER)
        if group and _gid(places.USER) is not None:
            self._must("groupdel", places.USER)

    def units(self, names: tuple[str, ...]) -> dict[str, UnitState]:
        """The state of each unit, in one question."""
        if not names:
            return {}
        shown = self.run("systemctl", "show", f"--property={','.join(_PROPERTIES)}", *names)
        if shown.status != 0:
            raise ApplyError(
                "systemctl show", shown.tail or f"ended with {shown.status}", "is systemd running here?"
            )
        states = {}
        for block in shown.output.split("\n\n"):
            values = dict(line.partition("=")[::2] for line in block.splitlines() if "=" in line)
            states[values.get("Id", "")] = UnitState(
                values.get("LoadState", ""),
                values.get("ActiveState", ""),
                values.get("NeedDaemonReload") == "yes",
            )
        return {name: states.get(name, UNKNOWN_UNIT) for name in names}

    def systemctl(self, *words: str) -> Outcome:
        """Runs systemctl; what it ended with is for the caller to judge."""
        return self.run("systemctl", *words, timeout_s=_SYSTEMCTL_TIMEOUT_S)

    def unit_log(self, unit: str) -> str:
        """The last lines that a unit logged, on one line."""
        return self.run("journalctl", "--unit", unit, "--lines", "5", "--output", "cat", "--no-pager").tail

    def refresh_trust(self, program: tuple[str, ...]) -> Outcome:
        """Rebuilds the store of trusted certificates by the host's own program."""
        return self.run(*program, timeout_s=_SYSTEMCTL_TIMEOUT_S)

    def has_selinux(self) -> bool:
        """Whether SELinux is on."""
        return os.path.exists(SELINUX)

    def has_program(self, name: str) -> bool:
        """Whether a program is where this one looks for it."""
        return any(os.access(f"{folder}/{name}", os.X_OK) for folder in ENVIRONMENT["PATH"].split(":"))

    def restore_labels(self, paths: list[str]) -> None:
        """Gives files the labels that the host's SELinux policy has for their places; nothing where it is off."""
        there = [path for path in paths if os.path.lexists(path)]
        if there and self.has_selinux():
            self._must("restorecon", "-R", *there)

    def reload_client(self, socket: str, *, to_release: bool) -> Outcome:
        """Has the running service read its configuration and keys again and, where another release is in place, hand
        over to a process of that, which drops no request. RESTART_NEEDED where that is not enough."""
        try:
            status, answer = ask(socket, "POST", "/control/reload", timeout_s=_PROGRAM_TIMEOUT_S)
        except ApplyError as error:
            return Outcome(1, str(error))
        if status != _HTTP_OK:
            told = answer.get("error")
            return Outcome(1, str(told.get("message") if isinstance(told, dict) else told))
        # A release from before hand-overs does not say what it took.
        is_left = to_release and "changed" not in answer
        return Outcome(RESTART_NEEDED if is_left or answer.get("restart_needed") else 0, "")

    def health(self, socket: str, *, timeout_s: float) -> dict[str, Any]:
        """The service's health report; where the service gives none, what the client says without it."""
        try:
            _, report = ask(socket, "GET", "/health", timeout_s=timeout_s)
            if isinstance(report.get("checks"), dict):
                return report
        except ApplyError:
            pass
        return self._health_by_client(timeout_s=timeout_s)

    def _health_by_client(self, *, timeout_s: float) -> dict[str, Any]:
        return self._report(self.run(places.LAUNCHER, "--health-check", "--json", timeout_s=timeout_s))

    def report_with(self, release: str, *, config_path: str, key: str) -> dict[str, Any]:
        """The health report of a release with a configuration and a key, beside the service; with the host's own key
        where none is given."""
        folder = places.release_path(release)
        main = (places.interpreter(folder, sys.executable), "-I", "-S", "-B", f"{folder}/main.py")
        # A socket on which nobody answers: the service would tell of itself.
        looks = ("--health-check", "--json", "--socket", "/dev/null", "--config", config_path)
        environment = {"AI_CLIENT_API_KEY": key} if key else {}
        return self._report(self.run(*main, *looks, timeout_s=_REPORT_TIMEOUT_S, environment=environment))

    def metrics(self, address: str) -> str:
        """What the service shows to Prometheus. Raises ApplyError."""
        status, text = converse(address, "GET /metrics", timeout_s=_QUESTION_TIMEOUT_S)
        if status != _HTTP_OK:
            raise ApplyError(address, f"answers {status}", "see who listens there")
        return text.decode(errors="replace")

    def sent_rpm(self, socket: str) -> int | None:
        """How many requests the service sent upstream in the last minute; None where it does not tell."""
        try:
            _, status = ask(socket, "GET", "/status.json", timeout_s=_QUESTION_TIMEOUT_S)
            return int(status["limits"]["rpm_used"])
        except (ApplyError, KeyError, TypeError, ValueError):
            return None

    def question(self, socket: str) -> Answer:
        """Status and body of what the service answers to a request that needs no upstream; status 0 and the reason
        where it gives no answer, asked twice."""
        for _ in range(2):
            try:
                return converse(
                    socket,
                    "POST /v1/chat/completions",
                    timeout_s=_QUESTION_TIMEOUT_S,
                    headers=_QUESTION_HEADERS,
                    body=_QUESTION,
                )
            except ApplyError as error:
                reason = str(error)
        return 0, reason.encode()

    def main_process(self) -> tuple[int, int] | None:
        """The service's main process by number and start time, which together name no other when it has ended."""
        pid = self.main_pid()
        started = _started(pid)
        return (pid, started) if started else None

    def end_if_replaced(self, process: tuple[int, int]) -> None:
        """Ends a process that is the service's main one no more: it finishes what it has begun, for a while."""
        if process[0] == self.main_pid():
            return
        deadline_s = self.clock_s() + _LEAVES_WITHIN_S
        _signal(process, signal.SIGTERM)
        while _started(process[0]) == process[1]:
            if self.clock_s() > deadline_s:
                _signal(process, signal.SIGKILL)
            self.wait(_LOOK_AGAIN_S)

    def main_pid(self) -> int:
        """The number of the service's main process; 0 where none runs."""
        shown = self.run("systemctl", "show", "--property=MainPID", "--value", places.SERVICE)
        return int(shown.output) if shown.output.strip().isdigit() else 0

    @staticmethod
    def _report(outcome: Outcome) -> dict[str, Any]:
        for line in reversed(outcome.output.splitlines()):
            try:
                report = json.loads(line)
            except ValueError:
                continue
            if isinstance(report, dict) and isinstance(report.get("checks"), dict):
                return report
        detail = f"no health report: {outcome.tail or f'ended with {outcome.status}'}"
        return {"ok": False, "checks": {"service": {"ok": False, "detail": detail}}}

    def _must(self, *argv: str) -> None:
        outcome = self.run(*argv)
        if outcome.status != 0:
            raise ApplyError(
                argv[0], outcome.tail or f"ended with {outcome.status}", "run it by hand on the host"
            )

    def run(
        self,
        *argv: str,
        timeout_s: float = _PROGRAM_TIMEOUT_S,
        stdin: bytes = b"",
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> Outcome:
        """Runs a program with a clean environment, and what is given for it, and returns its status and all that it
        said."""
        try:
            done = subprocess.run(
                argv,
                input=stdin,
                env={**ENVIRONMENT, **environment},
                cwd="/",
                timeout=timeout_s,
                check=False,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except FileNotFoundError:
            return Outcome(127, f"{argv[0]} is not installed")
        except subprocess.TimeoutExpired:
            return Outcome(124, f"{argv[0]} did not end within {timeout_s:g} s")
        return Outcome(done.returncode, done.stdout.decode(errors="replace"))


def _started(pid: int) -> int:
    """When a process started, in ticks since the host's; 0 where it has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The command's name, in brackets, may hold anything; the state is the first field after it.
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def _signal(process: tuple[int, int], number: int) -> None:
    try:
        if _started(process[0]) == process[1]:
            os.kill(process[0], number)
    except ProcessLookupError:
        return


def _uid(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _gid(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def _libc() -> tuple[str, str]:
    """`("glibc", "2.36")`, asked of the C library itself."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError):
        return "", ""
    return name, version
