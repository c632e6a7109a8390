"""One Ansible run, as a process of its own: `python -m infra.run` with a JSON order on standard input.

Standard output gets one line of JSON with a result for each host, standard error one line for each host that failed;
neither ever holds a secret.
"""

from __future__ import annotations

import ctypes
import json
import resource
import secrets
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from types import FrameType
from typing import Any, NoReturn

from infra.ansible_run import HostResults, execute
from infra.errors import FleetError
from infra.nodes import CloudInstance
from infra.order import Order

ROLLBACK = "ansible/ai-client-rollback.yml"
_DECOMMISSION = "ansible/ai-client-decommission.yml"
_FORGET = "a host that is gone for good can be forgotten: docs/how-to/incidents.md, 'A host is gone for good'"

_PR_SET_PDEATHSIG = 1


def failures(results: HostResults) -> list[str]:
    """A line for each host that failed or was not reached."""
    return [
        f"{host}: {'unreachable' if result.get('unreachable') else 'failed'}: {result.get('message', '')}"
        for host, result in results.items()
        if result.get("failed") or result.get("unreachable")
    ]


def roll_out(order: Order) -> tuple[HostResults, str]:
    """Runs an order; where a host of it had to be put back, the others that changed are put back too.

    A host that was not reached is no verdict on what was rolled out: the others keep it, and the next run goes on.
    """
    run = secrets.token_hex(8)
    results, tail = execute(order, run=run)
    changed = to_put_back(results)
    if not changed:
        return results, tail
    undone, _ = execute(replace(order, playbook=ROLLBACK, secrets={}), run=run, limit=changed)
    return results | {host: _put_back(host, results[host], undone) for host in changed}, tail


def to_put_back(results: HostResults) -> list[str]:
    """Hosts that changed in a run in which another host was put back on its last good state."""
    if not any(result.get("rolled_back") for result in results.values()):
        return []
    return sorted(
        host for host, result in results.items() if result.get("changed") and not result.get("failed")
    )


def _put_back(host: str, result: Mapping[str, Any], undone: HostResults) -> dict[str, Any]:
    """The result of a host that was healthy in a wave that was not."""
    after = undone.get(host, {"failed": True, "message": "gave no result"})
    if after.get("failed") or after.get("unreachable"):
        message = f"another host of its wave failed, and it could not be put back: {after.get('message', '')}"
        return {**result, "failed": True, "message": message}
    seen = {name: after.get(name) for name in ("release", "config_digest", "key_fingerprint", "health")}
    message = "put back: another host of its wave failed"
    return {**result, **seen, "failed": True, "rolled_back": True, "message": message}


def main() -> int:
    """Reads the order, runs it, prints the results. Exit status 1 where a host failed."""
    signal.signal(signal.SIGTERM, _ended)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)  # what started this run may be killed
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # keys are in the memory of this run and of Ansible
    raw = json.load(sys.stdin)
    order = Order(**{**raw, "tags": tuple(raw["tags"])})
    try:
        results, tail = _forgotten(order) or roll_out(order)
    except FleetError as error:
        print(error, file=sys.stderr)
        return 1
    summary = {host: {k: v for k, v in entry.items() if k != "diffs"} for host, entry in results.items()}
    print(json.dumps({"hosts": summary}, sort_keys=True))
    missing = sorted(set(order.hosts()) - set(results))
    failed = failures(results) + [f"{host}: gave no result: {tail}" for host in missing]
    if order.playbook == _DECOMMISSION and any(result.get("unreachable") for result in results.values()):
        failed.append(_FORGET)
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0


def _forgotten(order: Order) -> tuple[HostResults, str] | None:
    """Results of a host whose instance is gone; None where there is a host to contact."""
    if not order.instance:
        return None
    from infra import cloud  # noqa: PLC0415  (settings and boto3 would double the start of every run)

    (host,) = order.hosts()
    with cloud.credentials_from(int(sys.argv[1]) if sys.argv[1:] else None):
        reason = cloud.fate(host, CloudInstance(**order.instance))
    return (
        ({host: {"changed": False, "message": f"{reason}: forgotten without contact"}}, "")
        if reason
        else None
    )


def _ended(signum: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signum)


if __name__ == "__main__":
    sys.exit(main())
