"""A preview by the registry beside one that looks nowhere: `tools/env --dev .venv/bin/python -m tests.bench.registry`.

The declared hosts are made up and were never deployed: their state comes from an `up` whose runs are played, and an
engine holds what each would say of itself, as old as a few seconds. No host is contacted.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from ai_client.coordination.host_report import HostReport
from ai_client.coordination.wire import Keys
from tests.bench.memory import Peak
from tests.bench.preview import HOSTS_FILE, KEY, OUT, made_up, started
from tests.client.coordination.engine import RealEngine, programs
from tests.client.service_rig import free_port
from tests.fleet.clones import Clone, clone
from tests.infra.stacks import HOST_KEY

WITHOUT, BY_REGISTRY = "looks nowhere", "by the registry"
PROBES: dict[str, Any] = {WITHOUT: False, BY_REGISTRY: "registry"}
# Seconds more than a preview that looks nowhere.
GOAL_MORE_S = 10.0
_UP_S = 3600
_RESULT = {
    "release": "a" * 64,
    "config_digest": "b" * 64,
    "key_fingerprint": "0123456789ab",
    "key_next_fingerprint": "",
}
# Stands where runs are carried out: every host of a run becomes as it says.
_PLAYED = f"""
import json, sys
from infra.playbook.request import RunRequest
hosts = RunRequest.from_json(sys.stdin.read()).hosts()
result = {_RESULT | {"changed": True, "failed": False}!r}
print(json.dumps({{"hosts": dict.fromkeys(hosts, result)}}, sort_keys=True))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, engine(Path(folder)) as port:
        declared = declaration(given.hosts, port)
        project = clone(Path(folder) / "project", state=Path(folder) / "state", stack="said")
        (project.folder / HOSTS_FILE).write_text(json.dumps(hosts(given.hosts)), encoding="utf-8")
        up_s = deploy(started(project), declared)
        rows: dict[str, list[tuple[float, float]]] = {what: [] for what in PROBES}
        for _ in range(given.rounds):
            for what, probe in PROBES.items():
                project.configure({**declared, "probe": probe})
                names = list(hosts(given.hosts))
                rows[what].append(measured(project, port, names, by_registry=what == BY_REGISTRY))
                taken_s, mb = rows[what][-1]
                print(f"  {what:20}{taken_s:8.1f} s{mb:8.0f} MB", file=sys.stderr)
    report = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "hosts": given.hosts,
        "load_1m_at_end": os.getloadavg()[0],
        "up_s": up_s,
        "rows": rows,
    }
    OUT.mkdir(exist_ok=True)
    (OUT / "registry.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    show(rows)


def hosts(count: int) -> dict[str, Any]:
    """The hosts of the stack, which no configuration has room for."""
    return {
        f"host-{number:04}": {"address": address, "hostKeys": [HOST_KEY]}
        for number, address in enumerate(made_up(count), start=1)
    }


def declaration(count: int, port: int) -> dict[str, Any]:
    """The stack's structured configuration, keys without their prefix."""
    return {
        "environment": "bench",
        "account": {"rpm": 100 * count},
        "groups": {"hosts": {"hostsFile": HOSTS_FILE, "share": 1}},
        "coordination": {"endpoint": f"redis://127.0.0.1:{port}"},
        "probe": False,
    }


@contextmanager
def engine(folder: Path) -> Iterator[int]:
    """The port of an engine of its own."""
    port = free_port()
    (folder / "engine").mkdir()
    running = RealEngine(programs()[0], folder / "engine", "--port", str(port), "--bind", "127.0.0.1").start()
    try:
        yield port
    finally:
        running.stop()


def deploy(project: Clone, declared: dict[str, Any]) -> float:
    """Brings the stack up without any host. Seconds that it took."""
    project.configure(declared)
    project.pulumi("config", "set", "--secret", "apiKey", "--stack", project.stack, stdin=KEY)
    run = project.folder / "infra" / "run.py"
    real = run.read_text(encoding="utf-8")
    run.write_text(_PLAYED, encoding="utf-8")
    # A state in files is written whole after each resource.
    os.environ |= {"PULUMI_EXPERIMENTAL": "1", "PULUMI_SKIP_CHECKPOINTS": "1"}
    began_s = time.monotonic()
    project.pulumi("up", "--yes", "--skip-preview", "--json", "--stack", project.stack, timeout_s=_UP_S)
    del os.environ["PULUMI_EXPERIMENTAL"], os.environ["PULUMI_SKIP_CHECKPOINTS"]
    run.write_text(real, encoding="utf-8")
    return time.monotonic() - began_s


def say(port: int, names: list[str]) -> None:
    """Every host says now that it is as last applied."""
    word = HostReport(
        release=_RESULT["release"],
        config=_RESULT["config_digest"],
        key=_RESULT["key_fingerprint"],
        files="sealed",
    ).encode()
    now_s = str(int(time.time()))
    with redis.Redis(port=port) as link:
        link.hset(Keys("said").reports, mapping=dict.fromkeys(names, word))
        link.hset(Keys("said").said, mapping=dict.fromkeys(names, now_s))


def measured(project: Clone, port: int, names: list[str], *, by_registry: bool) -> tuple[float, float]:
    """Wall seconds and peak megabytes of one preview, in which nothing is to change."""
    say(port, names)
    with Peak() as peak:
        began_s = time.monotonic()
        told = project.pulumi("preview", "--stack", project.stack, "--expect-no-changes")
        taken_s = time.monotonic() - began_s
    everyone = f"{len(names)} of {len(names)} hosts reported"
    if by_registry and everyone not in told.output:
        sys.exit(f"not all went by the registry:\n{told.output[-2000:]}")
    return taken_s, peak.mb


def show(rows: dict[str, list[tuple[float, float]]]) -> None:
    """The table."""
    median_s = {what: statistics.median(taken_s for taken_s, _ in each) for what, each in rows.items()}
    for what, each in rows.items():
        print(f"{'preview ' + what:30}{median_s[what]:8.1f} s{max(mb for _, mb in each):8.0f} MB")
    more_s = median_s[BY_REGISTRY] - median_s[WITHOUT]
    print(
        f"{'seconds more':30}{more_s:8.1f}    goal ≤ {GOAL_MORE_S:g}{'' if more_s <= GOAL_MORE_S else '  missed'}"
    )


if __name__ == "__main__":
    main()
