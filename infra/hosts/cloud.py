"""What the program asks a cloud: which instances there are, and whether an instance is gone.

No answer, or part of one, is always an error: it never means that there is nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from infra.config.schema import Ec2Settings, FleetSettings
from infra.errors import FleetError, NodeSourceError
from infra.hosts import ec2
from infra.hosts.model import CloudInstance

if TYPE_CHECKING:
    from infra.hosts.aws import Account

Found = Mapping[str, tuple[ec2.Instance, ...]]


def instances(settings: FleetSettings) -> Found:
    """Instances of every group that comes from EC2, by name of the group.

    Raises:
        NodeSourceError: a group's instances are not known.
    """
    wanted = {name: group.ec2 for name, group in settings.groups.items() if group.ec2 is not None}
    if not wanted:
        return {}
    with ThreadPoolExecutor(max_workers=len(wanted)) as pool:
        return dict(zip(wanted, pool.map(_instances, wanted, wanted.values()), strict=True))


def _instances(name: str, wanted: Ec2Settings) -> tuple[ec2.Instance, ...]:
    account = _account(wanted.region, wanted.role_arn, f"fleet:groups.{name}.ec2", NodeSourceError)
    return ec2.instances(account.reservations(ec2.filters(wanted)), region=account.region)


def fate(host: str, instance: CloudInstance) -> str:
    """Why a host needs no cleaning up, since its instance is no more; "" where the instance is there and runs.

    Raises:
        NodeSourceError: it is not known whether it is gone, or it is there and does not run.
    """
    account = _account(instance.region, instance.role_arn, host, NodeSourceError)
    reservations = account.reservations_of(instance.id)
    answering = account.number() if reservations is None else instance.account
    return ec2.fate(host, instance, reservations, account=answering)


def is_gone(host: str, instance: Mapping[str, str]) -> bool:
    """Whether a claimed instance is known to be no more. Where it can't be asked, it counts as there.

    Args:
        host: the host's name.
        instance: what was recorded when it was claimed.
    """
    try:
        return bool(fate(host, CloudInstance(**instance)))
    except (NodeSourceError, TypeError):
        return False


def _account(region: str | None, role_arn: str | None, culprit: str, error: type[FleetError]) -> Account:
    from infra.hosts.aws import Account  # noqa: PLC0415  (boto3 takes a second to load)

    return Account(region, role_arn, culprit=culprit, error=error)


@contextmanager
def credentials_from(descriptor: int | None) -> Iterator[None]:
    """Takes AWS's variables from an open file for as long as AWS is asked; later children of this process lack them.

    Args:
        descriptor: file of lines `AWS_…=value`; None where the environment already has them.
    """
    if descriptor is None:
        yield
        return
    with os.fdopen(descriptor, encoding="utf-8", errors="surrogateescape") as lines:
        given = dict(line.rstrip("\n").partition("=")[::2] for line in lines if line.startswith("AWS_"))
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
