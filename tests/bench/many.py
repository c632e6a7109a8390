"""Many hosts, some of them dead and slow, beside pyinfra: `python -m tests.bench.many --hosts 200` (root).

All hosts are on this machine. They are reached through a jump host that takes connections as OpenSSH does by itself
(`MaxStartups 10:30:100`), and without one. On top of the hosts that answer, 1 % more are dead and 2 % of them take
two seconds longer for every session. Memory is that of all processes of the control side, pages shared between them
counted once. At the end, that many declared hosts are previewed.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from infra.hosts import fleet, local
from infra.hosts.model import Fleet
from infra.playbook import runner
from infra.playbook.request import RunRequest
from tests.bench import preview
from tests.bench.deploy import PROJECT, output, read_works
from tests.bench.deploy_fleet import GROUP, KEY, NAME, Booted, booted, declaration, load, root_of, states
from tests.bench.deploy_sides import (
    DeployFailedError,
    Pyinfra,
    Side,
    ThisProject,
    order_for,
    reach,
    run_order,
)
from tests.bench.deploy_work import PACKED
from tests.bench.memory import Peak

OUT = PROJECT / "tests" / "bench" / "out"
MAX_STARTUPS = "10:30:100"
JUMP, DIRECT = "through a jump host", "without one"
NETNS = Path("/run/netns") / f"acf-{NAME}"
DEAD_SHARE, SLOW_SHARE = 0.01, 0.02
SLOW_S = 2
COLD, UNCHANGED, QUARTER, FAULTY = (
    "cold",
    "nothing changed",
    "nothing changed, a quarter",
    "key, some dead and slow",
)
# What a host costs among all of them, by what it costs among a quarter; our time by pyinfra's.
GOAL_LINEAR, GOAL_PYINFRA = 1.1, 1.0
# An address of the bridge's network that no host has.
_FIRST_DEAD = 251


@dataclass(slots=True)
class Measured:
    """Wall seconds, and peak megabytes of the control side, by route, what was done, and side."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    #: Peers that could not do it, and after how many seconds that was clear.
    failed: list[dict[str, Any]] = field(default_factory=list)

    def take(self, route: str, what: str, *, side: str, act: Callable[[], None]) -> None:
        """Measures one run."""
        with Peak() as peak:
            started_s = time.monotonic()
            act()
            taken_s = time.monotonic() - started_s
        self.rows.append({"route": route, "what": what, "side": side, "s": taken_s, "mb": peak.mb})
        print(f"  {route:20}{what:28}{side:14}{taken_s:8.1f} s{peak.mb:8.0f} MB", file=sys.stderr, flush=True)

    def of(self, route: str, what: str, side: str, unit: str = "s") -> float | None:
        """One figure; None where it was not measured."""
        found = (row for row in self.rows if (row["route"], row["what"], row["side"]) == (route, what, side))
        row = next(found, None)
        return None if row is None else float(row[unit])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=200, help="hosts that answer, 4 to 240")
    parser.add_argument("--declared", type=int, default=5000, help="hosts to preview; 0 for no preview")
    parser.add_argument(
        "--slow-s", type=float, default=SLOW_S, help="what a session of a slow host takes more"
    )
    parser.add_argument("--no-peer", action="store_true", help="this project alone")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    os.chdir(PROJECT)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    if given.inside is not None:
        measured = Measured()
        measure(found(given.hosts), DIRECT, into=measured, has_peer=not given.no_peer)
        given.inside.write_text(json.dumps([measured.rows, measured.failed]), encoding="utf-8")
        return
    report = whole(given.hosts, given.declared, slow_s=given.slow_s, has_peer=not given.no_peer)
    OUT.mkdir(exist_ok=True)
    (OUT / f"many-{given.hosts}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    show(report)


def whole(hosts: int, declared: int, *, slow_s: float, has_peer: bool) -> dict[str, Any]:
    """Everything, on hosts that are booted for it and removed at the end."""
    measured = Measured()
    began_s, free_mb = time.monotonic(), available_mb()
    with booted(hosts) as fleet_of_it:
        boot = {"s": time.monotonic() - began_s, "mb": free_mb - available_mb()}
        print(
            f"  {hosts} hosts and their jump host booted: {boot['s']:.1f} s, {boot['mb']:.0f} MB",
            file=sys.stderr,
        )
        make_slow(fleet_of_it.names[: share(hosts, SLOW_SHARE)], slow_s)
        measure(fleet_of_it, JUMP, into=measured, has_peer=has_peer)
        rows, failed = inside_the_network(hosts, has_peer=has_peer)
        measured.rows += rows
        measured.failed += failed
    report = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "hosts": hosts,
        "cpus": os.cpu_count(),
        "boot": boot,
    }
    previews = preview_of(declared) if declared else {}
    found = {"rows": measured.rows, "failed": measured.failed, "preview": previews}
    return {**report, "load_1m_at_end": os.getloadavg()[0], **found}


def measure(of: Booted, route: str, *, into: Measured, has_peer: bool) -> None:
    """This project and pyinfra in turn on the same hosts, by one route."""
    orders = {
        "first": order_for(of, of.settings),
        "key": order_for(of, load(declaration(len(of.names)), key=f"{KEY}2")),
    }
    ours = ThisProject(orders)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        works = read_works(of, Path(scratch))
        reached = reach(of, Path(scratch), works["first"].claims)
        if route == JUMP:
            limit_startups(reached.ssh_config)
        sides: list[Side] = [ours]
        if has_peer:
            program = Path(output(["tools/venv", "bench"])) / "bin" / "pyinfra"
            sides.append(Pyinfra(works, reached, folder=Path(scratch), program=program))
        for side in sides:
            ours.wipe()
            forget_the_packed(of.names)
            ours.disconnect()
            began_s = time.monotonic()
            try:
                into.take(route, COLD, side=side.name, act=partial(side.deploy, "first"))
                ours.disconnect()
                into.take(route, UNCHANGED, side=side.name, act=partial(side.deploy, "first"))
            except DeployFailedError as error:
                if side is ours:
                    raise
                into.failed.append({"route": route, "side": side.name, "s": time.monotonic() - began_s})
                print(f"  {route:20}{side.name} failed: {error}", file=sys.stderr, flush=True)
                continue
            if states(of, reached.ssh_config, works["first"].watched).keys() != set(of.names):
                sys.exit("a host has no state, so the times do not compare")
        measure_of_ours(of, route, into=into)
        ours.wipe()
        ours.disconnect()


def forget_the_packed(names: list[str]) -> None:
    """Takes away what the peer leaves beside our files, which no decommission of ours touches: cold is cold."""
    for name in names:
        (root_of(name) / PACKED.lstrip("/")).unlink(missing_ok=True)


def measure_of_ours(of: Booted, route: str, *, into: Measured) -> None:
    """What only this project is asked: whether a host costs the same among few, and what dead and slow ones cost."""
    quarter = tuple(of.names[: len(of.names) // 4])
    order = order_for(of, of.settings)
    run_order(order)
    into.take(route, QUARTER, side=ThisProject.name, act=lambda: run_order(order, limit=quarter))
    faulty = with_dead(of)
    changed = order_for(faulty, load(declaration(len(of.names)), key=f"{KEY}3"))
    into.take(route, FAULTY, side=ThisProject.name, act=lambda: run_faulty(changed, alive=set(of.names)))


def with_dead(of: Booted) -> Booted:
    """The fleet with one host in a hundred more, whose addresses nobody has."""
    (group,) = (each for each in of.fleet.groups if each.name == GROUP)
    first = group.nodes[0]
    dead = tuple(
        replace(first, name=f"dead-{number}", address=f"10.88.0.{_FIRST_DEAD + number}")
        for number in range(share(len(of.names), DEAD_SHARE))
    )
    groups = tuple(
        replace(each, nodes=(*each.nodes, *dead)) if each is group else each for each in of.fleet.groups
    )
    known = of.captured.host_keys
    keys = {**known, **dict.fromkeys((node.name for node in dead), known[first.name])}
    return replace(of, fleet=replace(of.fleet, groups=groups), captured=replace(of.captured, host_keys=keys))


def run_faulty(order: RunRequest, *, alive: set[str]) -> None:
    """Every host that answers gets the change, and the others are named."""
    results, tail = runner.execute(order, run="bench")
    done = {host for host, result in results.items() if not (result["failed"] or result["unreachable"])}
    if done != alive:
        raise DeployFailedError(f"not deployed, or dead and deployed: {sorted(done ^ alive)}\n{tail}")
    unreachable = {host for host, result in results.items() if result["unreachable"]}
    if unreachable != set(order.hosts()) - alive:
        raise DeployFailedError(
            f"dead, and not said to be: {sorted(set(order.hosts()) - alive - unreachable)}"
        )


def available_mb() -> float:
    """Memory that the machine could still give."""
    (line,) = (line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvail"))
    return int(line.split()[1]) / 1024


def share(hosts: int, part: float) -> int:
    """How many of the hosts: one at least."""
    return max(1, round(hosts * part))


def found(hosts: int) -> Booted:
    """The fleet that another process has booted, as it is reached from inside of its network."""
    declared = load(declaration(hosts))
    return Booted(declared, without_jump(fleet.build(declared)), local.captured(NAME))


def without_jump(whole_fleet: Fleet) -> Fleet:
    """The same hosts, none of them behind another."""
    groups = tuple(
        replace(group, nodes=tuple(replace(node, jump=()) for node in group.nodes))
        for group in whole_fleet.groups
    )
    return replace(whole_fleet, groups=groups, jump_hosts=())


def inside_the_network(hosts: int, *, has_peer: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The same without a jump host, measured by a process in the network of the hosts: rows, and who failed."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        rows = Path(folder) / "rows.json"
        argv = ["nsenter", f"--net={NETNS}", sys.executable, "-m", "tests.bench.many"]
        argv += ["--hosts", str(hosts), "--inside", str(rows), *([] if has_peer else ["--no-peer"])]
        with subprocess.Popen(argv) as inside:
            try:
                status = inside.wait()
            finally:
                # It ends what it started, and removes its files.
                inside.terminate()
        if status:
            sys.exit(f"the part without a jump host ended with {status}")
        found, failed = json.loads(rows.read_text(encoding="utf-8"))
        return found, failed


def limit_startups(ssh_config: Path) -> None:
    """Lets the jump host refuse connections as one with OpenSSH's own settings does."""
    (jump,) = declaration(0)["jumpHosts"]
    script = (
        f"sed -i 's/^MaxStartups .*/MaxStartups {MAX_STARTUPS}/' /etc/ssh/sshd_config.d/*.conf && "
        "systemctl reload ssh && sshd -T | grep -i ^maxstartups"
    )
    argv = ["ssh", "-F", str(ssh_config), jump, "sudo", "sh", "-c", shlex.quote(script)]
    told = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout
    if told.split()[-1] != MAX_STARTUPS:
        sys.exit(f"the jump host has {told.strip()}, not MaxStartups {MAX_STARTUPS}")


def make_slow(names: list[str], slow_s: float) -> None:
    """Every session of these begins with a wait, as on a host that swaps."""
    for name in names:
        (root_of(name) / "etc/ssh/sshrc").write_text(f"sleep {slow_s}\n", encoding="utf-8")


def preview_of(hosts: int) -> dict[str, float]:
    """Seconds and megabytes of a preview of that many declared hosts, and an empty program's seconds."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        nothing, many = preview.empty(Path(folder)), preview.declared(Path(folder), hosts)
        empty_s = preview.preview_s(nothing)
        with Peak() as peak:
            taken_s = preview.preview_s(many)
    return {"hosts": hosts, "s": taken_s, "empty_s": empty_s, "mb": peak.mb}


def ratios(rows: Measured, hosts: int) -> list[tuple[str, float, float]]:
    """What is held to a goal: in words, the ratio, and the goal."""
    found = []
    for route in (JUMP, DIRECT):
        for what in (COLD, UNCHANGED):
            own, other = (rows.of(route, what, side) for side in (ThisProject.name, Pyinfra.name))
            if own is not None and other is not None:
                found.append((f"{what}, {route}: ours / pyinfra's", own / other, GOAL_PYINFRA))
        few, all_of_them = (
            rows.of(route, QUARTER, ThisProject.name),
            rows.of(route, UNCHANGED, ThisProject.name),
        )
        if few is not None and all_of_them is not None:
            ratio = (all_of_them / hosts) / (few / (hosts // 4))
            found.append((f"a host among all / among a quarter, {route}", ratio, GOAL_LINEAR))
    return found


def show(report: dict[str, Any]) -> None:
    """The ratios with their goals, and memory."""
    rows = Measured(report["rows"])
    print(f"\n{report['hosts']} hosts{'':50}{'ratio':>8}{'goal':>8}")
    for what, ratio, goal in ratios(rows, report["hosts"]):
        print(f"{what:58}{ratio:8.2f}{'≤ ' + format(goal, '.1f'):>8}{'' if ratio <= goal else '  missed'}")
    for peer in report["failed"]:
        print(
            f"{peer['side']} failed after {peer['s']:.0f} s, {peer['route']}: no time of it to compare with"
        )
    most = max(report["rows"], key=lambda row: row["mb"] if row["side"] == ThisProject.name else 0)
    print(f"most memory of the control side: {most['mb']:.0f} MB ({most['what']}, {most['route']})")
    if report["preview"]:
        found = report["preview"]
        print(
            f"preview of {found['hosts']:.0f} declared hosts: {found['s'] / found['empty_s']:.1f} × an empty "
            f"program's, {found['mb']:.0f} MB"
        )


if __name__ == "__main__":
    main()
