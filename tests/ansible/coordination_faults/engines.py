"""Engines at an address of their own on the hosts' bridge, and what can happen to them and to the way to them."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

import redis

from tests.ansible.real_fleet import Fleet
from tests.tools.hosts_control import ROOT
from tools.hosts import netns
from tools.hosts.commands import run

ADDRESS = "10.88.0.2"
PORT = 6390
ENDPOINT = f"redis://{ADDRESS}:{PORT}"
USER = "fleet"
PASSWORD = "the-password-of-the-faults"
_GUIDE = ROOT / "docs" / "how-to" / "coordination.md"
_SLOW = "tests.ansible.coordination_faults.slow"
# Nobody on the bridge has it: what is sent there is lost without a word.
_NOBODY = "02:00:00:00:00:99"
_DEADLINE_S = 30.0


def rights() -> list[str]:
    """The user's, as the guide tells to set them."""
    line = re.search(r"^user fleet on >PASSWORD (.*)$", _GUIDE.read_text(), re.MULTILINE)
    assert line is not None, f"{_GUIDE} has no line for the user"
    return line[1].split()


@dataclass
class Engine:
    """One process, named by its number: its port is its own until it gets the endpoint's."""

    fleet: Fleet
    program: str
    folder: Path
    number: int

    @property
    def name(self) -> str:
        return f"engine-{self.number}"

    @property
    def own_port(self) -> int:
        return PORT + self.number

    def start(self, *, port: int) -> Engine:
        self.folder.mkdir(exist_ok=True)
        argv = [
            self.program, "--bind", ADDRESS, "--port", str(port), "--unixsocket", str(self.folder / "engine.sock"),
            "--protected-mode", "no", "--save", "", "--appendonly", "yes", "--dir", str(self.folder),
            "--user", USER, "on", f">{PASSWORD}", *rights(),
        ]  # fmt: skip
        ready = {"address": ADDRESS, "port": port}
        self.fleet.control.ask("service", "up", order={"name": self.name, "argv": argv, "ready": ready})
        return self

    def signal(self, number: signal.Signals) -> None:
        control = self.fleet.control
        os.kill(control.recorded_pid(control.places.service(self.name).process), number)

    def remove(self) -> None:
        self.fleet.control.ask("service", "down", order={"name": self.name})

    def ask(self, *words: str | int) -> object:
        """As the operator, on its own socket."""
        with redis.Redis(unix_socket_path=str(self.folder / "engine.sock"), socket_timeout=10) as operator:
            told: object = operator.execute_command(*words)
            return told

    def facts(self, section: str) -> Mapping[str, object]:
        """A section of what it says of itself."""
        with redis.Redis(unix_socket_path=str(self.folder / "engine.sock"), socket_timeout=10) as operator:
            found: Mapping[str, object] = operator.info(section)
            return found

    def forget_callers(self) -> None:
        """Ends all connections of the fleet's user."""
        self.ask("CLIENT", "KILL", "USER", USER)


@dataclass
class Engines:
    """The one at the endpoint, and those that were or will be there."""

    fleet: Fleet
    folder: Path
    programs: tuple[str, ...]
    engine: Engine = field(init=False)
    replica: Engine | None = None
    _count: int = 0

    def open(self) -> None:
        """The address, and the first engine."""
        run(["ip", "-n", self._bridge, "addr", "add", f"{ADDRESS}/24", "dev", netns.BRIDGE], remedy="")
        self.engine = self._made(self.programs[0]).start(port=PORT)

    def _made(self, program: str) -> Engine:
        self._count += 1
        return Engine(self.fleet, program, self.folder / f"engine-{self._count}", self._count)

    @property
    def _bridge(self) -> str:
        return self.fleet.control.places.netns

    def close(self) -> None:
        """Ends it, and takes its address away."""
        for engine in filter(None, (self.engine, self.replica)):
            engine.remove()
        run(["ip", "-n", self._bridge, "addr", "del", f"{ADDRESS}/24", "dev", netns.BRIDGE], remedy="")

    def cut_off(self, host: str) -> None:
        """Neither way anything arrives between that host and the engine, and nobody is told."""
        way = ["ip", "-n", self.fleet.control.places.host(host).netns]
        run(
            [*way, "neigh", "replace", ADDRESS, "lladdr", _NOBODY, "dev", "lan0", "nud", "permanent"],
            remedy="",
        )
        run(["ip", "-n", self._bridge, "rule", "add", *self._back_to(host), "blackhole"], remedy="")

    def join(self, host: str) -> None:
        """Ends `cut_off`."""
        run(["ip", "-n", self._bridge, "rule", "del", *self._back_to(host), "blackhole"], remedy="")
        way = ["ip", "-n", self.fleet.control.places.host(host).netns]
        run([*way, "neigh", "del", ADDRESS, "dev", "lan0"], remedy="")

    def _back_to(self, host: str) -> list[str]:
        address = f"10.88.0.{11 + list(self.fleet.hosts).index(host)}"
        return ["from", ADDRESS, "to", address]

    def slow_down(self, delay_s: float) -> None:
        """Each answer is later by that."""
        self.engine.ask("CONFIG", "SET", "port", self.engine.own_port)
        argv = [".venv/bin/python", "-m", _SLOW, ADDRESS, str(PORT), str(self.engine.own_port), str(delay_s)]
        ready = {"address": ADDRESS, "port": PORT}
        self.fleet.control.ask("service", "up", order={"name": "slow", "argv": argv, "ready": ready})
        self.engine.forget_callers()

    def speed_up(self) -> None:
        """Ends `slow_down`."""
        self.fleet.control.ask("service", "down", order={"name": "slow"})
        self.engine.ask("CONFIG", "SET", "port", PORT)

    def fill(self, *, most_bytes: int) -> None:
        """Memory for no more than that; 0: for any."""
        self.engine.ask("CONFIG", "SET", "maxmemory", most_bytes)

    def change_password(self) -> None:
        """Hosts have a wrong one now."""
        self.engine.ask("ACL", "SETUSER", USER, f">{PASSWORD}-of-another")
        self.engine.ask("ACL", "SETUSER", USER, f"<{PASSWORD}")
        self.engine.forget_callers()

    def give_back_password(self) -> None:
        """Ends `change_password`."""
        self.engine.ask("ACL", "SETUSER", USER, f">{PASSWORD}")

    def version(self) -> str:
        """Program and version of the one that is there."""
        told = self.engine.facts("server")
        return f"{told.get('server_name', 'redis')} {told.get('valkey_version', told['redis_version'])}"

    def attach(self, program: str) -> None:
        """A replica that has all that the engine has."""
        made = self._made(program)
        self.replica = made.start(port=made.own_port)
        made.ask("REPLICAOF", ADDRESS, PORT)
        _until("the replica has all", lambda: _is_level(made, self.engine))

    def fail_over(self, *, lag_s: float) -> str:
        """The engine is killed, and its replica takes its place, which lacks what was written in the last `lag_s`, and
        at least one call. What it lacks, in words."""
        replica, old = self.replica, self.engine
        assert replica is not None
        # It hears nothing more, from nobody.
        replica.ask("REPLICAOF", ADDRESS, 1)
        began_s, calls = monotonic(), _calls(old)
        _until("calls that the replica lacks", lambda: monotonic() - began_s >= lag_s and _calls(old) > calls)
        lacking, seconds = _calls(old) - calls, monotonic() - began_s
        self.promote()
        return f"the replica lacked {lacking} calls of the last {seconds:.1f} s"

    def promote(self) -> None:
        """The engine is killed, and its replica takes its place, with all that it has."""
        assert self.replica is not None
        replica, old = self.replica, self.engine
        self.engine, self.replica = replica, None
        old.signal(signal.SIGKILL)
        replica.ask("REPLICAOF", "NO", "ONE")
        _until("the endpoint is free", lambda: _has_port(replica))
        old.remove()

    def replace(self, program: str) -> None:
        """Another program takes the place, with nothing."""
        self.engine.remove()
        self.engine = self._made(program).start(port=PORT)

    def restart(self) -> None:
        """After it was killed: with what it has on its disk."""
        self.engine.start(port=PORT)


def _has_port(engine: Engine) -> bool:
    """Whether it listens on the endpoint now: a process that was killed may hold it for another moment."""
    try:
        engine.ask("CONFIG", "SET", "port", PORT)
    except redis.ResponseError as refused:
        if "listen on this port" not in str(refused):
            raise
        return False
    return True


def _is_level(replica: Engine, primary: Engine) -> bool:
    told = replica.facts("replication")
    return (
        told.get("master_link_status") == "up"
        and told["slave_repl_offset"] == primary.facts("replication")["master_repl_offset"]
    )


def _calls(engine: Engine) -> int:
    """How many calls of scripts it has answered."""
    told = engine.facts("commandstats")
    counts = [told.get(f"cmdstat_{name}", {}) for name in ("evalsha", "eval")]
    return sum(int(each.get("calls", 0)) for each in counts if isinstance(each, dict))


def _until(what: str, holds: Callable[[], bool]) -> None:
    ends_s = monotonic() + _DEADLINE_S
    while not holds():
        assert monotonic() < ends_s, f"waited {_DEADLINE_S} s for: {what}"
        sleep(0.05)
