"""What to do about failures that Ansible, ssh or sudo word themselves: those name a reason and no way out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_BECOME = "'pulumi config set --secret --path vars.ansible_become_password', or give the login sudo without a password"
# Ansible does not know the prompt of sudo-rs (ansible/ansible issue 85837).
_OTHER_SUDO = "or name the original sudo in ansible_become_exe (/usr/bin/sudo.ws) where the host's is sudo-rs"
_KEYS = "compare the host's key over a channel that you trust, and pin it in hostKeys"
_REMEDIES = tuple(
    (re.compile(pattern, re.IGNORECASE), remedy)
    for pattern, remedy in (
        (r"missing (sudo|become) password|password is required|a terminal is required", f"set it: {_BECOME}"),
        (r"interactive authentication is required", f"give the login sudo without a password, {_OTHER_SUDO}"),
        (
            r"waiting for privilege escalation prompt",
            f"give the login sudo without a password, {_OTHER_SUDO}",
        ),
        (r"must have a tty to run sudo", "write 'Defaults:LOGIN !requiretty' into the host's sudoers"),
        (r"incorrect (sudo|become) password|sorry, try again", f"set the right one: {_BECOME}"),
        (
            r"is not in the sudoers file|not allowed to execute|I'm afraid I can't do that",
            "give the login sudo on this host",
        ),
        (
            r"permission denied \((publickey|password|keyboard)",
            "put the login's public key on the host, and the private one into ssh.identityFile or an agent",
        ),
        (r"host key verification failed|remote host identification has changed|no matching host key", _KEYS),
        (
            r"too many authentication failures",
            "name one key in ssh.identityFile: an agent offers all its keys",
        ),
        (
            r"could not resolve hostname",
            "correct the host's address, or make the name known to this machine's DNS",
        ),
        (
            r"no route to host|network is unreachable",
            "check that the host is up and that a route leads there",
        ),
        (r"connection refused", "check that sshd runs there, at this address and port"),
        (r"connection timed out", "check that the host is up and that no firewall drops the connection"),
        (r"no space left on device", "free space on the file system that is named, or in the host's /tmp"),
    )
)


# What Ansible puts before ssh's words, which are those that people know and look up.
_WRAPPER = re.compile(
    r"^(?:Task failed: )?(?:Data could not be sent to remote host \"[^\"]*\"\. "
    r"Make sure this host can be reached over ssh|Failed to connect to the host via ssh): (?=\S)"
)


def with_remedy(result: Mapping[str, Any]) -> dict[str, Any]:
    """A host's result, its message with a way out where others worded it; ssh's own words come first."""
    message = str(result.get("message") or "")
    if result.get("unreachable") and (wrapped := _WRAPPER.match(message)):
        message = message[wrapped.end() :]
        result = {**result, "message": message}
    if result.get("failed") or result.get("unreachable"):
        for pattern, remedy in _REMEDIES:
            if pattern.search(message) and remedy not in message:
                return {**result, "message": f"{message}; {remedy}"}
    return dict(result)
