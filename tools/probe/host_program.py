"""Lies on a host as the forced command of an ssh key that can only look: see docs/how-to/pull-requests.md.

Whoever has the key can start this and nothing else. What a controller sends as the program is passed over: the one in
this file runs, in check mode, and only for what belongs to ai-client. Arguments are further paths that may be looked
at, for hosts whose folders are elsewhere. `PROGRAM` stands above this text: the applier, as it is sent to hosts.
"""

import io
import json
import os
import re
import sys

# What a controller starts on a host, in whatever shell and sudo it wraps it.
LOADER = "import sys;i=sys.stdin.buffer;exec(i.read(int(i.readline())))"
# The service's user can write in all of these but the first, and so put links there.
CONFIG_PATHS = {"/etc/ai-client"}
PATHS = CONFIG_PATHS | {"/var/cache/ai-client", "/var/log/ai-client"}
LONGEST_BYTES = 32 << 20
# How a controller's run goes about it is passed over: this is how every look does.
LOOK = {"check": True, "run": "", "gate": {}, "tries_keys": False}

MARK = re.compile(r"BECOME-SUCCESS-[a-z]{32}")
UNIT = re.compile(r"ai-client[a-z-]{0,40}\.(service|socket)")
TAG = re.compile(r"[A-Za-z0-9_]{1,40}(-[A-Za-z0-9_]{1,40}){0,4}")
UPSTREAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
DIGEST = re.compile(r"[0-9a-f]{64}")
PARTS = {"deploy", "config", "secrets", "verify"}
TEXTS = (
    "program",
    "python",
    "version",
    "config",
    "ca_bundle",
    "socket",
    "key",
    "key_next",
    "coordination_password",
    "takes_over",
    "consent",
)


class RefusedError(Exception):
    """What this key cannot do."""


def main():
    """As the login: asks sudo for root. As root: looks."""
    try:
        if os.geteuid() != 0:
            become_root(os.environ.get("SSH_ORIGINAL_COMMAND", ""))
        desired, manner = read_request(sys.stdin.buffer)
        check_manner(manner)
        check(desired, frozenset(sys.argv[1:]))
    except RefusedError as error:
        sys.exit(f"probe: {error}; this key can only look")
    # The applier reads its own program as it would from a controller, and then what was checked, member by member.
    text, look = json.dumps(desired, sort_keys=True).encode(), json.dumps(LOOK).encode()
    sent = b"%b%d %d 0\n%b%b" % (PROGRAM, len(text), len(look), text, look)  # noqa: F821
    sys.stdin = io.TextIOWrapper(io.BytesIO(sent))
    exec(LOADER, {"__name__": "__main__"})  # noqa: S102 - the constant above


def become_root(command):
    """Becomes this program as root. Ansible waits for its mark before it sends anything."""
    if LOADER not in command:
        raise RefusedError("this command is not a controller's")
    mark = MARK.search(command)
    if mark:
        print(mark[0], flush=True)
    os.execv("/usr/bin/sudo", ["sudo", "-n", "--", os.path.abspath(__file__), *sys.argv[1:]])  # noqa: PTH100, S606


def read_request(stdin):
    """What is desired and in which manner, behind the program that came with it: a bootstrap, and modules."""
    try:
        stdin.read(number(stdin.readline(20)))
        for _ in range(number(stdin.readline(20))):
            _, size = stdin.readline(200).split()
            stdin.read(number(size))
        desired_bytes, manner_bytes, artefact_bytes = map(number, stdin.readline(60).split())
        parts = [json.loads(stdin.read(size)) for size in (desired_bytes, manner_bytes)]
        is_request = all(isinstance(part, dict) for part in parts)
    except (ValueError, RecursionError):
        is_request = False
    if not is_request:
        raise RefusedError("this is no controller's request")
    if artefact_bytes:
        raise RefusedError("an artefact was sent")
    return parts


def number(text):
    """How much follows."""
    found = int(text)
    if not 0 <= found <= LONGEST_BYTES:
        raise RefusedError("too much was sent")
    return found


def check_manner(manner):
    """Refuses a run that is more than a look, and members that belong elsewhere: they would hide what is desired."""
    if manner.get("check") is not True:
        raise RefusedError("this would change the host")
    unknown = sorted(set(manner) - set(LOOK))
    if unknown:
        raise RefusedError(f"the manner of the run has {unknown[0][:40]!r}")


def check(desired, more_paths):
    """Refuses all but the members of a look, each of the form that it has there. `desired` is what the applier gets."""
    if desired.get("mode") != "apply" or desired.get("collect", {}) != {}:
        raise RefusedError("this would change the host, or fetch files from it")
    for name, value in desired.items():
        form = FORMS.get(name)
        if form is None:
            raise RefusedError(f"{name[:40]!r} is no member of a look")
        if not form(value, more_paths):
            shown = repr(value)[:200] if name in ("directories", "cert_path", "spool_dir") else "what it has"
            raise RefusedError(f"{name}: {shown} is not for this key to look at")
    if not isinstance(desired.get("directories"), dict):
        raise RefusedError("directories is missing")


def are_texts(value, names):
    """A mapping of texts with no other names than these."""
    return isinstance(value, dict) and set(value) <= names and all(isinstance(v, str) for v in value.values())


def are_directories(value, more_paths):
    """The three folders; the configuration's is not one that the service can write to."""
    if not are_texts(value, {"config", "cache", "log"}) or len(value) != len({"config", "cache", "log"}):
        return False
    return is_within(value["config"], CONFIG_PATHS | more_paths) and all(
        is_within(value[name], PATHS | more_paths) for name in ("cache", "log")
    )


def are_units(value, _):
    """Units of ai-client's, with their texts."""
    return isinstance(value, dict) and all(UNIT.fullmatch(n) and isinstance(t, str) for n, t in value.items())


def are_trees(value, _):
    """Trees of an artefact."""
    return isinstance(value, dict) and all(
        TAG.fullmatch(tag) and is_tree(tree) for tag, tree in value.items()
    )


def is_tree(tree):
    """A digest, and what the tree needs."""
    return (
        isinstance(tree, dict)
        and set(tree) <= {"digest", "glibc_min", "size"}
        and bool(DIGEST.fullmatch(str(tree.get("digest"))))
        and isinstance(tree.get("glibc_min", ""), str)
        and isinstance(tree.get("size", 0), int)
    )


def are_upstream_keys(value, _):
    """Keys of other upstreams by name: what is there is told by its fingerprint alone."""
    return isinstance(value, dict) and all(
        UPSTREAM.fullmatch(name) and are_texts(keys, {"key", "next"}) for name, keys in value.items()
    )


def is_text(value, _):
    """Any text: it is compared with what is on the host, and never opened."""
    return isinstance(value, str)


def is_number(value, _):
    """Any number."""
    return isinstance(value, (int, float))


FORMS = {
    **dict.fromkeys(TEXTS, is_text),
    **dict.fromkeys(("protocol", "health_deadline_s", "keep_releases"), is_number),
    **dict.fromkeys(("needs_consent", "adopts_account"), lambda value, _: isinstance(value, bool)),
    "mode": lambda value, _: value == "apply",
    "collect": lambda value, _: value == {},
    "parts": lambda value, _: isinstance(value, list) and all(part in PARTS for part in value),
    "claim": lambda value, _: are_texts(value, {"name", "owner", "lineage"}),
    "directories": are_directories,
    "cert_path": lambda value, more: value == "" or is_within(value, CONFIG_PATHS | more),
    "spool_dir": lambda value, more: value == "" or is_within(value, PATHS | more),
    "units": are_units,
    "trees": are_trees,
    "upstream_keys": are_upstream_keys,
}


def is_within(path, paths):
    """Whether a path is one of these, or below one, without a way out of it: by its words, and by links on the host."""
    return (
        isinstance(path, str)
        and ".." not in path.split("/")
        and is_below(path, paths)
        and is_below(os.path.realpath(path), {os.path.realpath(p) for p in paths})
    )


def is_below(path, paths):
    """Whether a path is one of these, or begins with one."""
    return any(f"{path}/".startswith(f"{p.rstrip('/')}/") for p in paths)


if __name__ == "__main__":
    main()
