"""Where things lie on a host, whatever the role's variables say."""

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

STATE_DIR = "/var/lib/ai-client"
RUN_DIR = "/run/ai-client"
UNIT_DIR = "/etc/systemd/system"
TRUST_DIR = "/usr/local/share/ca-certificates"
TRUST_PREFIX = "ai-client-"

# Files of ours that are not in place yet. Under the lock a leftover is always of a run that was killed.
PARTIAL_PREFIX = ".ai-client-apply."


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


def is_ours(path: str) -> bool:
    """Whether a folder bears our name in a place of the system's, and so is ours whole."""
    return path in (HOME, STATE_DIR, "/var/cache/ai-client", "/var/log/ai-client") or f"{path}/".startswith(
        f"{OPT}/"
    )
