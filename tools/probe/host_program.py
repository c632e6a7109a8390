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
PATHS = {"/etc/ai-client", "/var/cache/ai-client", "/var/log/ai-client"}
LONGEST_BYTES = 32 << 20
LOOK = b'{"check": true, "run": "", "gate": {}, "tries_keys": false}'

MARK = re.compile(r"BECOME-SUCCESS-[a-z]{32}")
UNIT = re.compile(r"ai-client[a-z-]{0,40}\.(service|socket)")
TAG = re.compile(r"[A-Za-z0-9_]{1,40}(-[A-Za-z0-9_]{1,40}){0,4}")
DIGEST = re.compile(r"[0-9a-f]{64}")


class RefusedError(Exception):
    """What this key cannot do."""


def main():
    """As the login: asks sudo for root. As root: looks."""
    try:
        if os.geteuid() != 0:
            become_root(os.environ.get("SSH_ORIGINAL_COMMAND", ""))
        desired, manner = read_request(sys.stdin.buffer)
        check({**json.loads(desired), **json.loads(manner)}, PATHS.union(sys.argv[1:]))
    except RefusedError as error:
        sys.exit(f"probe: {error}; this key can only look")
    # The applier reads its own program as it would from a controller, and then the request, to be looked at alone.
    sent = b"%b%d %d 0\n%b%b" % (PROGRAM, len(desired), len(LOOK), desired, LOOK)  # noqa: F821
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
        texts = stdin.read(desired_bytes), stdin.read(manner_bytes)
        is_request = all(isinstance(json.loads(text), dict) for text in texts)
    except ValueError:
        is_request = False
    if not is_request:
        raise RefusedError("this is no controller's request")
    if artefact_bytes:
        raise RefusedError("an artefact was sent")
    return texts


def number(text):
    """How much follows."""
    found = int(text)
    if not 0 <= found <= LONGEST_BYTES:
        raise RefusedError("too much was sent")
    return found


def check(request, paths):
    """Refuses whatever would change the host, or read what is not ai-client's."""
    if request.get("mode") != "apply" or request.get("check") is not True or request.get("collect") != {}:
        raise RefusedError("this would change the host, or fetch files from it")
    directories = request.get("directories")
    places = [*directories.values()] if isinstance(directories, dict) else [None]
    for path in (*places, request.get("cert_path") or "", request.get("spool_dir") or ""):
        if path != "" and not is_within(path, paths):
            raise RefusedError(f"{str(path)[:200]!r} is none of the paths that it may look at")
    for names, pattern in (("units", UNIT), ("trees", TAG)):
        if not isinstance(request.get(names), dict) or not all(map(pattern.fullmatch, request[names])):
            raise RefusedError(f"{names} names something else than ai-client's")
    for tree in request["trees"].values():
        if not isinstance(tree, dict) or not DIGEST.fullmatch(str(tree.get("digest"))):
            raise RefusedError("trees names no digest")


def is_within(path, paths):
    """Whether a path is one of these, or below one, without a way out of it."""
    return (
        isinstance(path, str)
        and ".." not in path.split("/")
        and any(f"{path}/".startswith(f"{p}/") for p in paths)
    )


if __name__ == "__main__":
    main()
