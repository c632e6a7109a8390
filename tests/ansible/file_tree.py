"""Everything that is on a host's disk, to compare before and after."""

import re
from collections.abc import Mapping

# What a running system changes without anybody deploying to it, and backups that user tools leave.
_LIVELY = "|".join(
    [
        "/proc",
        "/sys",
        "/run",
        "/tmp",
        "/dev",
        "/home",
        "/var/lib/systemd",
        "/var/log/(journal|lastlog|wtmp|btmp)",
    ]
)
# Links and files are in those folders; their own sizes tell nothing.
_FOLDERS = "/|/etc|/etc/systemd/system(/.*wants)?|/var|/var/log|/opt|/var/lib|/var/cache"
TREE = (
    f"find / -xdev -regextype posix-extended -regex '({_LIVELY})' -prune"
    " -o ! -name '*-' ! -name .pwd.lock ! -name .updated -type f -printf '%p %m %u %g %s\\n'"
    f" -o -type d ! -regex '{_FOLDERS}' -printf '%p %m %u %g\\n'"
    " -o -type l -printf '%p %l\\n' | sort"
)


def different(seen: Mapping[str, set[str]], before: Mapping[str, set[str]]) -> list[str]:
    """Lines of two hosts' trees that are in one of them only, but for what the service writes into its own folders."""
    lines = {f"{host}: {line}" for host in before for line in seen[host] ^ before[host]}
    return sorted(line for line in lines if not re.match(r"\S+: /var/(log|cache|lib)/ai-client/", line))
