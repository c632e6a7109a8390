"""Nodes that are existing EC2 instances. Decisions only: `infra.hosts.cloud` asks AWS.

A stopped instance is a host that is away: it keeps its claim and is not deployed. A terminated one is no host any more.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.config.schema import Ec2Settings, FleetSettings, GroupSettings, is_host_key
from infra.errors import NodeSourceError
from infra.hosts.model import CloudInstance, Node

GONE = frozenset({"terminated", "shutting-down"})

_NOT_IN_NAMES = re.compile(r"[^a-z0-9]+")
_LONGEST_NAME = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """What AWS says of one instance.

    Attributes:
        id: instance id.
        account: number of the account that it belongs to.
        region: region that it lives in.
        state: its state's name (`running`, …).
        address: private IPv4 address, else IPv6 address, else "".
        zone: availability zone.
        tags: its tags.
    """

    id: str
    account: str
    region: str
    state: str
    address: str
    zone: str
    tags: Mapping[str, str]


def filters(wanted: Ec2Settings) -> list[dict[str, Any]]:
    """A group's choice as DescribeInstances takes it."""
    chosen: dict[str, Sequence[str]] = {**wanted.filters, "instance-state-name": wanted.states}
    if wanted.vpc_id:
        chosen["vpc-id"] = [wanted.vpc_id]
    if wanted.zones:
        chosen["availability-zone"] = wanted.zones
    return [{"Name": name, "Values": list(values)} for name, values in chosen.items()]


def instances(reservations: Iterable[Mapping[str, Any]], *, region: str) -> tuple[Instance, ...]:
    """Instances of an answer of DescribeInstances, each once: one that moves between pages is seen twice."""
    found = {
        raw["InstanceId"]: Instance(
            id=raw["InstanceId"],
            account=reservation.get("OwnerId", ""),
            region=region,
            state=raw["State"]["Name"],
            address=raw.get("PrivateIpAddress") or raw.get("Ipv6Address") or "",
            zone=raw.get("Placement", {}).get("AvailabilityZone", ""),
            tags={tag["Key"]: tag["Value"] for tag in raw.get("Tags", ())},
        )
        for reservation in reservations
        for raw in reservation["Instances"]
    }
    return tuple(found.values())


def nodes(
    settings: FleetSettings, name: str, group: GroupSettings, found: Iterable[Instance]
) -> tuple[Node, ...]:
    """The hosts of a group, in the order of their names.

    Args:
        settings: the stack's settings.
        name: name of the group.
        group: its settings.
        found: what AWS answered to the group's filters.

    Raises:
        NodeSourceError: no instance is left, two have one name, or one cannot be reached at all.
    """
    wanted = group.ec2
    if wanted is None:
        raise NodeSourceError(f"fleet:groups.{name}.ec2", "is missing", "say which instances")
    key = f"fleet:groups.{name}.ec2"
    members = [instance for instance in found if instance.state not in GONE and not _is_unborn(instance)]
    if not members and not wanted.allow_empty:
        raise NodeSourceError(
            key,
            "no instance matches its filters, which never means that all hosts should be removed",
            "correct filters, region or account, or set allowEmpty: true if the group may be empty",
        )
    made = sorted((_node(settings, group, wanted, member) for member in members), key=lambda node: node.name)
    _check_names(key, made)
    return tuple(made)


def check_apart(everyone: Iterable[Node]) -> None:
    """Refuses two hosts of one name or one address where one of them comes from EC2.

    Raises:
        NodeSourceError: two hosts can't be told apart.
    """
    seen: dict[str, Node] = {}
    for node in everyone:
        for mark in (f"the name {node.name}", f"the address {node.address}:{node.port}"):
            other = seen.setdefault(mark, node)
            if other is not node and (other.instance or node.instance):
                raise NodeSourceError(
                    _called(node),
                    f"has {mark}, as {_called(other)} has",
                    "narrow the filters, so that each instance is in one group, or set another nameTag",
                )


def fate(
    host: str,
    instance: CloudInstance,
    reservations: Sequence[Mapping[str, Any]] | None,
    *,
    account: str,
) -> str:
    """Why a host needs no cleaning up, since its instance is no more; "" where the instance is there and runs.

    Args:
        host: the host's name.
        instance: what was recorded when it was claimed.
        reservations: what AWS answers about it; None where it knows no such instance.
        account: number of the account that answered.

    Raises:
        NodeSourceError: another account answered, or the instance is there and does not run.
    """
    if reservations is None:
        if account != instance.account:
            raise NodeSourceError(
                host,
                f"its instance {instance.id} is of account {instance.account}, and {account} was asked",
                "use credentials of its own account",
            )
        return f"instance {instance.id} is no longer there"
    found = next((i for i in instances(reservations, region=instance.region) if i.id == instance.id), None)
    if found is None:
        raise NodeSourceError(host, f"AWS did not mention its instance {instance.id}", "run it again")
    if found.state not in GONE and found.state != "running":
        raise NodeSourceError(
            host,
            f"its instance {instance.id} is {found.state}, so key and service can't be removed from it",
            "start it, or terminate it",
        )
    return f"instance {instance.id} is {found.state}" if found.state in GONE else ""


def _is_unborn(instance: Instance) -> bool:
    """Whether it starts for the first time, and has no address yet: it joins at the next run."""
    return instance.state == "pending" and not instance.address


def _node(settings: FleetSettings, group: GroupSettings, wanted: Ec2Settings, instance: Instance) -> Node:
    name = host_name(instance, name_tag=wanted.name_tag)
    if not instance.address:
        raise NodeSourceError(
            f"{instance.id} ({name})",
            f"is {instance.state} and has no private address",
            "attach a network interface, or leave it out by a filter",
        )
    is_away = instance.state != "running"
    return Node(
        name=name,
        address=instance.address,
        user=group.user or settings.user,
        port=group.port or 22,
        zone=instance.zone,
        jump=group.jump,
        host_keys=_host_keys(wanted, instance, name),
        instance=CloudInstance(
            id=instance.id,
            region=instance.region,
            account=instance.account,
            role_arn=wanted.role_arn or "",
        ),
        away=f"instance {instance.id} is {instance.state}" if is_away else "",
    )


def host_name(instance: Instance, *, name_tag: str) -> str:
    """The inventory name: the instance's name tag made fit for it, else the instance id."""
    said = instance.tags.get(name_tag, "") if name_tag else ""
    fit = _NOT_IN_NAMES.sub("-", said.lower()).strip("-")[:_LONGEST_NAME].rstrip("-")
    return fit or instance.id


def _host_keys(wanted: Ec2Settings, instance: Instance, name: str) -> tuple[str, ...]:
    declared = wanted.host_keys.get(instance.id) or wanted.host_keys.get(name)
    if declared:
        return declared
    tagged = instance.tags.get(wanted.host_key_tag, "").strip()
    if not tagged:
        return ()
    # What follows the key itself is a comment, as in the host's own file.
    key = " ".join(tagged.split()[:2])
    if not is_host_key(key):
        raise NodeSourceError(
            f"{instance.id} ({name})",
            f"its tag {wanted.host_key_tag} is not a public host key",
            "write the text of /etc/ssh/ssh_host_ed25519_key.pub into it",
        )
    return (key,)


def _check_names(key: str, made: Sequence[Node]) -> None:
    """Refuses two instances of one name: names that depend on who else is there would move from host to host."""
    for first, second in itertools.pairwise(made):
        if first.name == second.name:
            raise NodeSourceError(
                key,
                f"{_called(first)} and {_called(second)} have one name",
                'give each its own name tag, or name hosts by instance id with nameTag: ""',
            )


def _called(node: Node) -> str:
    return f"{node.name} ({node.instance.id})" if node.instance else node.name
