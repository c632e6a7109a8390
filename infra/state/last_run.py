"""What the stack's state says of the last run: whose hosts it has, and within which limits they work.

The state is the truth about what a stack owns, whatever its configuration says by now.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi.runtime import invoke

from infra.config.precedence import Precedence
from infra.secret_texts import NAME_PREFIX

MODEL_LIMITS = "ai_limits"
_COMMAND = "command:local:Command"
_READS = 20
_BETWEEN_READS_S = 0.1

Resources = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLimits:
    """What one host may send: requests and tokens a minute, 0 for no limit, as a part of its group.

    `models` are limits of single models and upstreams, as `ai_limits` has them.
    """

    group: str
    rpm: int
    tpm: int
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A host that the stack holds.

    Attributes:
        claim: what the marker on the host says.
        address: where it was when it was last claimed; "" where the state does not say.
        instance: what it is at its cloud; empty elsewhere.
        host_keys: public host keys that were pinned for it then.
    """

    claim: str
    address: str = ""
    instance: Mapping[str, str] = field(default_factory=dict)
    host_keys: frozenset[str] = frozenset()

    @property
    def host(self) -> str:
        """The host's name."""
        return self.claim.rpartition("/")[2]

    @property
    def owner(self) -> str:
        """The part of the claim that names the state."""
        return self.claim.rpartition("/")[0]

    @property
    def said(self) -> str:
        """The host as a message names it."""
        return self.host


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What the last run that ended well put on one host.

    Attributes:
        inventory: the run's inventory, which holds its variables.
        content: digest of role and release.
        key: fingerprint of the upstream key.
        key_next: fingerprint of the key that a rotation goes to, or "".
        result: what the host answered.
        secrets: secret texts among the run's variables, by name; never the key.
    """

    inventory: Mapping[str, Any]
    content: str
    key: str
    key_next: str
    result: Mapping[str, Any]
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Recorded:
    """The last run.

    Attributes:
        claims: claims that the stack holds, by the name of their resource.
        limits: limits that each host was given, by its name.
        waves: names of the hosts of each wave, by group.
        applied: what was last applied, by host.
        nonces: of each command that runs again where its work has drifted, what it last ran under; by name.
    """

    claims: Mapping[str, Claimed] = field(default_factory=dict)
    limits: Mapping[str, HostLimits] = field(default_factory=dict)
    waves: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    applied: Mapping[str, Applied] = field(default_factory=dict)
    nonces: Mapping[str, str] = field(default_factory=dict)


def read() -> Recorded:
    """The last run by the stack's state; nothing before the first.

    The engine itself is asked: a StackReference would be a resource, and show in every preview.
    """
    name = f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}"
    return from_resources(_read_when_whole(name))


def from_resources(resources: Resources) -> Recorded:
    """The last run by a state's resources: outputs by URN."""
    commands = {
        urn.rsplit("::", 1)[-1]: held["outputs"]
        for urn, held in resources.items()
        if held.get("type") == _COMMAND and isinstance(held.get("outputs"), Mapping)
    }
    inputs = {name: outputs.get("environment") or {} for name, outputs in commands.items()}
    waves = {name: entry for name, entry in inputs.items() if "GROUP" in entry}
    return Recorded(
        claims={name: _claimed(commands[name]) for name, entry in inputs.items() if "CLAIM" in entry},
        limits={host: limits for name in waves for host, limits in _limits(commands[name])},
        waves=_waves(waves),
        applied={host: last for name in waves for host, last in _applied(commands[name])},
        nonces={name: entry["NONCE"] for name, entry in inputs.items() if "NONCE" in entry},
    )


def _claimed(outputs: Mapping[str, Any]) -> Claimed:
    inputs = outputs["environment"]
    claim, address = str(inputs["CLAIM"]), str(inputs.get("ADDRESS", ""))
    try:
        request = json.loads(outputs["stdin"])
        lines = [line.split(" ", 1) for line in str(request.get("known_hosts", "")).splitlines()]
    except (KeyError, TypeError, ValueError):
        return Claimed(claim=claim, address=address)
    host = claim.rpartition("/")[2]
    keys = frozenset(line[1] for line in lines if len(line) == 2 and line[0] == host)
    return Claimed(claim=claim, address=address, instance=request.get("instance") or {}, host_keys=keys)


def _limits(outputs: Mapping[str, Any]) -> Iterator[tuple[str, HostLimits]]:
    """Limits of each host of a wave: one number for all of them, or one each."""
    inputs: Mapping[str, str] = outputs["environment"]
    hosts = inputs["HOSTS"].split(",")
    rpm, tpm = (_each(inputs[name], hosts) for name in ("RPM", "TPM"))
    models = _model_limits(outputs.get("stdin"), hosts)
    for host, host_rpm, host_tpm in zip(hosts, rpm, tpm, strict=True):
        yield (
            host,
            HostLimits(group=inputs["GROUP"], rpm=host_rpm, tpm=host_tpm, models=models.get(host, {})),
        )


def _model_limits(request: object, hosts: Sequence[str]) -> dict[str, Mapping[str, Mapping[str, Any]]]:
    """Those of each host of a wave, by what its run was told; most stacks have none, and are read no further."""
    if not isinstance(request, str) or f'"{MODEL_LIMITS}"' not in request:
        return {}
    try:
        seen = Precedence.of_inventory(json.loads(request)["inventory"])
        return {host: model_limits(seen.variables(host)) for host in hosts}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}  # of a run that another program recorded


def model_limits(variables: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The limits of single models among a host's variables; what is none of its form is nobody's quota."""
    found = variables.get(MODEL_LIMITS)
    if not isinstance(found, Mapping):
        return {}
    return {str(model): limits for model, limits in found.items() if isinstance(limits, Mapping)}


def _each(numbers: str, hosts: Sequence[str]) -> list[int]:
    found = [int(number) for number in numbers.split(",")]
    return found if len(found) == len(hosts) else found[:1] * len(hosts)


def _waves(inputs: Mapping[str, Mapping[str, str]]) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Hosts of each wave in the waves' order, which the number at the end of a wave's name gives."""
    found: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
    for name, wave in inputs.items():
        number = name.rpartition("-")[2]
        if number.isdecimal():
            found.setdefault(wave["GROUP"], []).append((int(number), tuple(wave["HOSTS"].split(","))))
    return {group: tuple(hosts for _, hosts in sorted(numbered)) for group, numbered in found.items()}


def _applied(outputs: Mapping[str, Any]) -> Iterator[tuple[str, Applied]]:
    """What a wave's run put on each of its hosts. Of its request, which holds the key, the key is not read."""
    inputs = outputs["environment"]
    try:
        request = json.loads(outputs["stdin"])
        inventory, secrets = request["inventory"], request.get("secrets") or {}
        results = json.loads(outputs["stdout"])["hosts"]
    except (KeyError, TypeError, ValueError):
        return  # of a run that another program recorded
    for host in inputs["HOSTS"].split(","):
        yield (
            host,
            Applied(
                inventory=inventory,
                content=inputs.get("CONTENT", ""),
                key=inputs.get("KEY", ""),
                key_next=inputs.get("KEY_NEXT", ""),
                result=results.get(host) or {},
                secrets={n: text for n, text in secrets.items() if n.startswith(NAME_PREFIX)},
            ),
        )


def _read_when_whole(stack: str) -> Resources:
    """The state's resources. A file backend does not write in one piece: a reader may find half, and asks again."""
    for attempt in range(_READS):
        try:
            answer = invoke("pulumi:pulumi:readStackResourceOutputs", {"stackName": stack})
        except Exception as error:  # the engine's refusals have no type of their own
            if "failed to load checkpoint" not in str(error) or attempt == _READS - 1:
                raise
            time.sleep(_BETWEEN_READS_S)
        else:
            break
    return (answer.value or {}).get("outputs") or {}
