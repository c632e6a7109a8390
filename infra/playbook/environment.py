"""The one environment that a playbook run has, whoever starts it: a preview's probe and a deploy see the same world.

Ansible's own variables of the caller (`ANSIBLE_*`), locales and everything else stay outside: they would switch pinned
host keys off, or let a plan work and its deploy fail.
"""

from __future__ import annotations

from collections.abc import Mapping

# What a run may inherit where it is set. None of it is secret: as arguments of `env` other users see the values.
INHERITED = (
    "PATH",
    "HOME",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_STATE_HOME",
    "SSH_AUTH_SOCK",
    "CI",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)
# May hold a login. Both cases: curl and Python read the lower one first.
PROXIES = tuple(
    name
    for scheme in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
    for name in (scheme, scheme.lower())
)
# Ansible refuses a locale that is no UTF-8, and C.UTF-8 is the one that every system has.
LOCALE = "C.UTF-8"


def cleaned(environment: Mapping[str, str]) -> dict[str, str]:
    """What a run sees of its starter's environment."""
    kept = {name: environment[name] for name in (*INHERITED, *PROXIES) if name in environment}
    return {**kept, "LANG": LOCALE}
