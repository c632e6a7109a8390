"""What a health report means for a roll-out."""

from typing import Any, NamedTuple

# Checks that fail where the provider or the way to it is down.
NETWORK = frozenset({"upstream", "tls"})
# Faults that an earlier release would have as well: the key is not part of it, and the disk is the host's.
_NOT_OF_A_RELEASE = frozenset({"key", "disk"})


class Verdict(NamedTuple):
    """Whether the host fails, whether to go back, and the reason in words (empty where it is well)."""

    is_failed: bool
    rolls_back: bool
    reason: str


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
        return Verdict(is_failed=False, rolls_back=False, reason="")
    reason = "unhealthy: " + "; ".join(f"{name}: {detail}" for name, detail in sorted(faults.items()))
    caused = faults.keys() - failed_before if is_changed else set()
    is_outage = not caused and NETWORK.issuperset(faults)
    # Without a usable key the upstream can't be asked at all.
    blamed = caused - _NOT_OF_A_RELEASE - (NETWORK if "key" in faults else frozenset())
    return Verdict(
        is_failed=only_asked or not is_outage, rolls_back=bool(blamed) and not only_asked, reason=reason
    )
