"""Where things lie on a host, whatever the role's variables say."""

import os

USER = "ai-client"
SERVICE = "ai-client.service"

# Always here, so that a later run finds the marker even where `ai_config_dir` moved.
HOME = "/etc/ai-client"
MARKER = f"{HOME}/claim.json"
JOURNAL = f"{HOME}/releases.jsonl"
GOOD_STATES = f"{HOME}/good.json"
PENDING = f"{HOME}/pending.json"

OPT = "/opt/ai-client"
RELEASES = f"{OPT}/releases"
CURRENT = f"{OPT}/current"
LAUNCHER = f"{OPT}/bin/ai-client"

# Where a release has an interpreter of its own.
OWN_PYTHON = "python/bin/python3"

STATE_DIR = "/var/lib/ai-client"
RUN_DIR = "/run/ai-client"
UNIT_DIR = "/etc/systemd/system"
TRUST_PREFIX = "ai-client-"

# Files of ours that are not in place yet. Under the lock a leftover is always of a run that was killed.
PARTIAL_PREFIX = ".ai-client-apply."
# What was set aside: systemd takes drop-ins that end in .conf alone.
ASIDE_SUFFIX = ".set-aside"


def wanted_by(unit: str) -> str:
    """The target that starts a unit at boot."""
    return "sockets.target" if unit.endswith(".socket") else "multi-user.target"


def unit_path(unit: str) -> str:
    """The file of a unit."""
    return f"{UNIT_DIR}/{unit}"


def wants_path(unit: str) -> str:
    """The link that makes a unit start at boot."""
    return f"{UNIT_DIR}/{wanted_by(unit)}.wants/{unit}"


def release_path(digest: str) -> str:
    """The folder of a release."""
    return f"{RELEASES}/{digest}"


def interpreter(folder: str, host_python: str) -> str:
    """What runs a release that lies in a folder: the interpreter in it, or the host's."""
    own = f"{folder}/{OWN_PYTHON}"
    return own if os.path.exists(own) else host_python


def is_of_a_killed_run(name: str) -> bool:
    """Whether a name is of a file that was to be put in place."""
    return name.startswith(PARTIAL_PREFIX)


def is_ours(path: str) -> bool:
    """Whether a folder bears our name in a place of the system's, and so is ours whole."""
    return path in (HOME, STATE_DIR, "/var/cache/ai-client", "/var/log/ai-client") or f"{path}/".startswith(
        f"{OPT}/"
    )
