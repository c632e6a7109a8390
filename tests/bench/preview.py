"""A preview beside an empty program's: `tools/env --dev .venv/bin/python -m tests.bench.preview`.

The declared hosts are made up, their addresses reserved for documentation. Nothing is contacted (`fleet:probe: false`),
so nothing is deployed either: each preview plans every resource as one to make.
"""

import argparse
import ipaddress
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.fleet.clones import Clone, clone

OUT = Path(__file__).resolve().parent / "out"
KEY = "hs_test_0123456789abcdef"
EMPTY = "an empty program"
HOSTS_FILE = "hosts.yml"
# Three blocks of addresses for documentation, of 254 hosts each.
_BLOCKS = ("192.0.2", "198.51.100", "203.0.113")
_IN_A_BLOCK = 254
_MANY = ipaddress.ip_network("198.18.0.0/15")  # RFC 2544
# At most this many times an empty program's time, at 50 hosts.
GOAL_HOSTS, GOAL = 50, 2.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, nargs="*", default=[7, 50, 500])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        programs = {EMPTY: empty(Path(folder))} | {
            f"{n} hosts": declared(Path(folder), n) for n in given.hosts
        }
        walls_s: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(given.rounds):
            for name, program in programs.items():
                walls_s[name].append(preview_s(program))
    medians_s = {name: statistics.median(walls) for name, walls in walls_s.items()}
    OUT.mkdir(exist_ok=True)
    date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    report = {"date": date, "walls_s": walls_s, "medians_s": medians_s}
    (OUT / "preview.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    show(medians_s)


def empty(folder: Path) -> Clone:
    """A project whose program does nothing."""
    project = folder / "empty"
    project.mkdir()
    (project / "Pulumi.yaml").write_text("name: empty\nruntime: python\n", encoding="utf-8")
    (project / "__main__.py").write_text("", encoding="utf-8")
    (project / ".venv").symlink_to(Path(sys.executable).parent.parent)
    return started(Clone(project, folder / "empty-state", "empty"))


def declared(folder: Path, hosts: int) -> Clone:
    """This project with that many hosts declared."""
    project = clone(folder / f"hosts-{hosts}", state=folder / f"state-{hosts}", stack=f"bench{hosts}")
    started(project)
    addresses = made_up(hosts)
    names = {f"host-{number:04}": {"address": address} for number, address in enumerate(addresses, start=1)}
    # Pulumi takes no more configuration than some 2,000 hosts without keys need.
    (project.folder / HOSTS_FILE).write_text(json.dumps(names), encoding="utf-8")
    project.configure(
        {"environment": "bench", "probe": False, "groups": {"hosts": {"hostsFile": HOSTS_FILE}}}
    )
    project.pulumi("config", "set", "--secret", "apiKey", "--stack", project.stack, stdin=KEY)
    return project


def made_up(hosts: int) -> list[str]:
    """Addresses that are nobody's: those for documentation, and more than those has the range for benchmarks."""
    few = [f"{block}.{n}" for block in _BLOCKS for n in range(1, _IN_A_BLOCK + 1)]
    return few[:hosts] if hosts <= len(few) else [str(_MANY[n]) for n in range(1, hosts + 1)]


def started(program: Clone) -> Clone:
    """The program with a stack of its own."""
    program.state.mkdir(exist_ok=True)
    program.pulumi("stack", "init", program.stack)
    return program


def preview_s(program: Clone) -> float:
    """Wall seconds of one preview."""
    started_s = time.monotonic()
    program.pulumi("preview", "--stack", program.stack)
    return time.monotonic() - started_s


def show(medians_s: dict[str, float]) -> None:
    """The table."""
    print(f"\n{'pulumi preview':24}{'seconds':>10}{'× empty':>10}")
    for name, median_s in medians_s.items():
        ratio = median_s / medians_s[EMPTY]
        missed = "  missed" if name == f"{GOAL_HOSTS} hosts" and ratio > GOAL else ""
        goal = f"  goal ≤ {GOAL}{missed}" if name == f"{GOAL_HOSTS} hosts" else ""
        print(f"{name:24}{median_s:10.2f}{ratio:10.2f}{goal}")


if __name__ == "__main__":
    main()
