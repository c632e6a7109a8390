"""What a health report means for a roll-out."""

from typing import Any, NamedTuple

# Checks that fail where the provider, the engine that lends quota, or the way to them is down.
NETWORK = frozenset({"upstream", "tls", "coordination"})
# Faults that an earlier release would have as well: the key is not part of it, the disk is the host's, and without its
# engine a host goes on with its own share.
_NOT_OF_A_RELEASE = frozenset({"key", "disk", "coordination"})


class Verdict(NamedTuple):
    """What to make of a host.

    Attributes:
        is_failed: whether the run fails.
        rolls_back: whether the change is to be undone.
        reason: what is wrong, in words; empty where nothing is.
        is_unreached: whether nothing but the way to the provider is wrong.
    """

    is_failed: bool
    rolls_back: bool
    reason: str
    is_unreached: bool = False


FINE = Verdict(is_failed=False, rolls_back=False, reason="")


def failing(report: dict[str, Any]) -> dict[str, str]:
    """The checks that failed, with their details."""
    return {
        name: str(check.get("detail", "")) for name, check in report["checks"].items() if not check.get("ok")
    }


def judge(
    report: dict[str, Any], *, is_changed: bool, failed_before: frozenset[str], only_asked: bool
) -> Verdict:
    """The verdict on a report.

    Args:
        report: the client's health report.
        is_changed: whether this run, or one that did not end, changed what the service runs with.
        failed_before: the checks that failed before the change.
        only_asked: whether the run was to verify and nothing else.
    """
    faults = failing(report)
    if not faults:
        return FINE
    reason = "unhealthy: " + "; ".join(f"{name}: {detail}" for name, detail in sorted(faults.items()))
    caused = faults.keys() - failed_before if is_changed else set()
    is_unreached = NETWORK.issuperset(faults)
    # Without a usable key the upstream can't be asked at all.
    blamed = caused - _NOT_OF_A_RELEASE - (NETWORK if "key" in faults else frozenset())
    return Verdict(
        is_failed=only_asked or bool(caused) or not is_unreached,
        rolls_back=bool(blamed) and not only_asked,
        reason=reason,
        is_unreached=is_unreached,
    )
