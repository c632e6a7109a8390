"""Programs of the host that a run starts: what is missing is told before anything is changed, by the preview, too."""

from collections.abc import Iterator

from .distribution import PACKAGES
from .errors import ApplyError
from .host import Host
from .items import TRUST, Identity, Release
from .observe import Observed
from .plan import Plan


def missing(host: Host, plan: Plan, observed: Observed, *, trust_program: str) -> "list[ApplyError]":
    """What of the programs that this plan needs the host does not have."""
    return [
        ApplyError(f"the program {name}", "is missing on this host", f"install {PACKAGES.get(name, name)}")
        for name in _needed(host, plan, observed, trust_program)
        if not host.has_program(name)
    ]


def _needed(host: Host, plan: Plan, observed: Observed, trust_program: str) -> Iterator[str]:
    if any(isinstance(item, Release) for item in plan.items):
        yield from ("tar", "gzip")
    if any(isinstance(item, Identity) for item in plan.items):
        yield from ["groupadd"] if observed.ids.gid is None else []
        yield from ["useradd"] if observed.ids.uid is None else []
    if TRUST in plan.effects:
        yield trust_program
    if host.has_selinux():
        yield "restorecon"
