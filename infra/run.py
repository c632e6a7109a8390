"""One Ansible run, as a process of its own: `python -m infra.run` with a JSON request on standard input.

Standard output gets one line of JSON with a result for each host, standard error one line for each host that failed;
neither ever holds a secret.
"""

from __future__ import annotations

from infra import run_slots

if __name__ == "__main__":
    # Before the imports below: dozens of groups wait for their turn at once, and this is half of what one takes.
    _SLOT = run_slots.take()

import ctypes
import json
import resource
import secrets
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import FrameType
from typing import Any, NoReturn

from infra.errors import FleetError, PlaybookError
from infra.hosts.model import CloudInstance
from infra.playbook import consent
from infra.playbook.consent import Machine, Verdict
from infra.playbook.request import RunRequest
from infra.playbook.runner import HostResults, execute
from infra.secret_texts import NAME_PREFIX

ROLLBACK = "ansible/ai-client-rollback.yml"
_DECOMMISSION = "ansible/ai-client-decommission.yml"
_FORGET = "a host that is gone for good can be forgotten: docs/how-to/incidents.md, 'A host is gone for good'"

_LOCAL_HOSTS = "/var/lib/ai-client-fleet/local"

_PR_SET_PDEATHSIG = 1


def failures(results: HostResults) -> list[str]:
    """A line for each host that failed or was not reached; one for those that nothing but their name tells apart."""
    hosts: dict[str, list[str]] = {}
    for host, result in results.items():
        if result.get("failed") or result.get("unreachable"):
            state = "unreachable" if result.get("unreachable") else "failed"
            hosts.setdefault(f"{state}: {result.get('message', '')}", []).append(host)
    return [f"{', '.join(names)}: {cause}" for cause, names in hosts.items()]


def roll_out(request: RunRequest) -> tuple[HostResults, str]:
    """Carries a request out; where a host of it had to be put back, the others that changed are put back too.

    A host that was not reached is no verdict on what was rolled out: the others keep it, and the next run goes on.
    """
    run = secrets.token_hex(8)
    results, tail = execute(request, run=run)
    changed = to_put_back(results)
    if not changed:
        return results, tail
    undone, why = _undo(request, run, changed)
    return results | {host: _put_back(host, results[host], undone, why) for host in changed}, tail


def _undo(request: RunRequest, run: str, hosts: Sequence[str]) -> tuple[HostResults, str]:
    """What became of each host that was to be put back; and why there is no answer, where none came."""
    request = replace(request, playbook=ROLLBACK, secrets=_without_keys(request.secrets))
    try:
        return execute(request, run=run, limit=hosts)[0], "gave no result"
    except PlaybookError as error:
        return {}, str(error)


def _without_keys(secrets: Mapping[str, str]) -> dict[str, str]:
    """Secrets that a host may be reached with. A rollback never brings a key back."""
    return {name: text for name, text in secrets.items() if name.startswith(NAME_PREFIX)}


def to_put_back(results: HostResults) -> list[str]:
    """Hosts that changed in a run in which another host changed and was not well then.

    Whether that one could be put back itself makes no difference to the others. One that failed before it changed, or
    was not reached, is no verdict on what was rolled out.
    """
    if not any(result.get("changed") and _is_unwell(result) for result in results.values()):
        return []
    return sorted(
        host for host, result in results.items() if result.get("changed") and not _is_unwell(result)
    )


def _is_unwell(result: Mapping[str, Any]) -> bool:
    """Whether a deploy failed; a group's own tasks that failed after it tell nothing of what was rolled out."""
    return bool(result.get("failed")) and not result.get("own_task")


def _put_back(host: str, result: Mapping[str, Any], undone: HostResults, why: str) -> dict[str, Any]:
    """The result of a host that was healthy in a wave that was not."""
    after = undone.get(host, {"failed": True, "message": why})
    if after.get("failed") or after.get("unreachable"):
        message = f"another host of its wave failed, and it could not be put back: {after.get('message', '')}"
        return {**result, "failed": True, "message": message}
    seen = {name: after.get(name) for name in ("release", "config_digest", "key_fingerprint", "health")}
    message = "put back: another host of its wave failed"
    return {**result, **seen, "failed": True, "rolled_back": True, "message": message}


def main() -> int:
    """Reads the request, runs it, prints the results. Exit status 1 where a host failed."""
    signal.signal(signal.SIGTERM, _ended)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)  # what started this run may be killed
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # keys are in the memory of this run and of Ansible
    try:
        request = RunRequest.from_json(sys.stdin.read())
        results, tail = _forgotten(request) or left_alone(request) or roll_out(with_consent(request))
    except FleetError as error:
        print(error, file=sys.stderr)
        return 1
    summary = {host: {k: v for k, v in entry.items() if k != "diffs"} for host, entry in results.items()}
    print(json.dumps({"hosts": summary}, sort_keys=True))
    missing = sorted(set(request.hosts()) - set(results))
    failed = failures(results) + [f"{host}: gave no result: {tail}" for host in missing]
    if request.playbook == _DECOMMISSION and any(result.get("unreachable") for result in results.values()):
        failed.append(_FORGET)
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0


def _forgotten(request: RunRequest) -> tuple[HostResults, str] | None:
    """Results of a host whose instance is gone; None where there is a host to contact."""
    if not request.instance:
        return None
    from infra.hosts import cloud  # noqa: PLC0415  (settings and boto3 would double the start of every run)

    (host,) = request.hosts()
    with cloud.credentials_from(int(sys.argv[1]) if sys.argv[1:] else None):
        reason = cloud.fate(host, CloudInstance(**request.instance))
    return (
        ({host: {"changed": False, "message": f"{reason}: forgotten without contact"}}, "")
        if reason
        else None
    )


def left_alone(request: RunRequest) -> tuple[HostResults, str] | None:
    """Results of a host that is not to be cleaned up; None where it is, or where another playbook runs.

    Raises:
        PlaybookError: nobody said that the host leaves, and there is something on it to remove.
    """
    if request.playbook != _DECOMMISSION:
        return None
    (host,) = request.hosts()
    said = consent.verdict(Machine.of_request(request.inventory, request.instance))
    if said is Verdict.STAYS:
        message = (
            "the stack still declares it: its claim is replaced in the state, and the host is left alone"
        )
        return {host: {"changed": False, "message": message}}, ""
    if said is Verdict.LEAVES or request.may_clean_up or _is_made_here(request):
        return None
    results, tail = execute(replace(request, check=True))
    if not results.get(host, {}).get("changed") or results[host].get("failed"):
        return results, tail
    raise PlaybookError(
        host,
        "would be cleaned up (service, files, key and user), but no run listed it as leaving the stack",
        "to remove the host, delete it from the stack's file and run 'pulumi up'; to destroy the stack, run "
        "'pulumi config set allowDestroy true', then 'pulumi up', then 'pulumi destroy'",
    )


def with_consent(request: RunRequest) -> RunRequest:
    """The request with the consent that a host may ask for (`ai_needs_consent`): that it leaves is said by now."""
    if request.playbook != _DECOMMISSION:
        return request
    hosts = {
        host: {**variables, "ai_consent": variables["ai_claim"]}
        for host, variables in request.inventory["all"]["hosts"].items()
    }
    return replace(request, inventory={"all": {**request.inventory["all"], "hosts": hosts}})


def _is_made_here(request: RunRequest) -> bool:
    """Whether it is a host that its stack boots itself, in requests that were written before they said so."""
    return f"IdentityFile {_LOCAL_HOSTS}/" in request.ssh_config


def _ended(signum: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signum)


if __name__ == "__main__":
    sys.exit(main())
