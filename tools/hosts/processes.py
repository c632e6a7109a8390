"""Processes that outlive this run: known by process id with start time, and by the cgroup that only they are in."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tools.hosts.commands import child_environment
from tools.hosts.errors import HostsError
from tools.hosts.files import read_record, write_record

POLL_S = 0.02
# The shell writes itself into the cgroups before it becomes the program, so no child is ever outside of them.
_ENTER = 'for file in $1; do echo $$ >"$file" || exit 1; done; shift; exec "$@"'


@dataclass(frozen=True)
class Process:
    """A process that can't be taken for a later one with the same id."""

    pid: int
    start_ticks: int

    def is_running(self) -> bool:
        """Whether it is there and no zombie."""
        return _start_ticks(self.pid) == self.start_ticks


def read_process(path: Path) -> Process | None:
    """The process of a record, running or not."""
    record = read_record(path)
    if record is None:
        return None
    pid, start_ticks = record.get("pid"), record.get("start_ticks")
    if not isinstance(pid, int) or not isinstance(start_ticks, int):
        raise HostsError(str(path), "names no process", "purge the fleet and make it anew")
    return Process(pid, start_ticks)


def start(
    argv: Sequence[str], *, cgroup: str, log: Path, cwd: Path, record: Path, facts: dict[str, object]
) -> None:
    """Starts a program on its own: own session, own cgroup, no stream of the caller's; records it."""
    files = []
    for folder in cgroup_folders(cgroup):
        folder.mkdir(parents=True, exist_ok=True)
        files.append(str(folder / "cgroup.procs"))
    with log.open("ab") as output:
        child = subprocess.Popen(
            ["/bin/sh", "-c", _ENTER, "sh", " ".join(files), *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=cwd,
            env=child_environment(os.environ),
            start_new_session=True,
        )
    start_ticks = _start_ticks(child.pid)
    write_record(record, {"pid": child.pid, "start_ticks": start_ticks or 0, **facts})


def stop(record: Path, *, cgroup: str, deadline_s: float) -> None:
    """Asks the recorded process to end, then ends whatever is left in its cgroup."""
    process = read_process(record)
    if process is not None and process.is_running():
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        wait_until(lambda: not process.is_running(), timeout_s=deadline_s)
    kill_cgroup(cgroup)
    record.unlink(missing_ok=True)


def kill_cgroup(cgroup: str) -> None:
    """Ends every process in a cgroup and removes it."""
    if not wait_until(lambda: not _killed(members(cgroup)), timeout_s=10):
        left = ", ".join(map(str, sorted(members(cgroup))))
        raise HostsError(f"cgroup {cgroup}", f"processes {left} do not end", "see what they wait for")
    for folder in cgroup_folders(cgroup):
        _remove_tree(folder)


def members(cgroup: str) -> set[int]:
    """The processes in a cgroup and all below it."""
    found: set[int] = set()
    for top in cgroup_folders(cgroup):
        for folder, _, _ in os.walk(top):
            with suppress(OSError):
                found.update(map(int, Path(folder, "cgroup.procs").read_text().split()))
    return found


def cgroup_folders(cgroup: str) -> list[Path]:
    """A cgroup's folder in every hierarchy that systemd keeps its own processes in."""
    return [top / cgroup for top in _hierarchies(Path("/proc/self/mounts").read_text())]


def kill_namespaces(inodes: set[int]) -> None:
    """Ends every process in the network namespaces with these inodes."""
    if not wait_until(lambda: not _killed(in_namespaces(inodes)), timeout_s=10):
        left = ", ".join(map(str, sorted(in_namespaces(inodes))))
        raise HostsError("network namespaces", f"processes {left} do not end", "see what they wait for")


def in_namespaces(inodes: set[int]) -> set[int]:
    """Processes whose network namespace is one of these."""
    found = set()
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdigit() and (folder / "ns" / "net").stat().st_ino in inodes:
                found.add(int(folder.name))
    return found


def wait_until(condition: Callable[[], bool], *, timeout_s: float, poll_s: float = POLL_S) -> bool:
    """Polls a condition; False where it never came true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(poll_s)
    return True


def _killed(pids: set[int]) -> bool:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(pids)


def _remove_tree(top: Path) -> None:
    """A cgroup's folders vanish by rmdir only, from the leaves up."""
    for folder, _, _ in os.walk(top, topdown=False):
        wait_until(lambda folder=folder: _removed(Path(folder)), timeout_s=2)  # type: ignore[misc]


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _hierarchies(mounts: str) -> list[Path]:
    found = []
    for line in mounts.splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            found.append(Path(where))
    return found


def _start_ticks(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command's name, in brackets, may hold anything; state is the first field after it, start the 20th.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])
