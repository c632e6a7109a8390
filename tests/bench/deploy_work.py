"""What the peers are told to lay down: read off a host that this project has deployed, so that it is the same bytes."""

import base64
import json
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

USER = "ai-client"
DIRECTORIES = (
    "/etc/ai-client",
    "/var/cache/ai-client",
    "/var/log/ai-client",
    "/var/lib/ai-client",
    "/opt/ai-client",
    "/opt/ai-client/bin",
    "/opt/ai-client/releases",
)
CONFIG = "/etc/ai-client/ai-client.conf"
RELOADED = (CONFIG, "/etc/ai-client/key")
UNITS = ("ai-client.socket", "ai-client-tcp.socket", "ai-client.service")
RESTARTED = ("/opt/ai-client/bin/ai-client", *(f"/etc/systemd/system/{unit}" for unit in UNITS))
CLAIM = "/etc/ai-client/claim.json"
CURRENT = "/opt/ai-client/current"
# The packed tree; this project sends it too, but does not leave it on the host.
PACKED = "/opt/ai-client/artefact.tar.gz"
_COMPILE = (
    "import compileall, py_compile, sys; mode = py_compile.PycInvalidationMode.UNCHECKED_HASH; "
    "sys.exit(not compileall.compile_dir(sys.argv[1], quiet=1, invalidation_mode=mode, stripdir=sys.argv[1], "
    "prependdir=sys.argv[2]))"
)
# Asks the service over its socket, as this project's applier does; again until it is healthy.
_HEALTH = """
import socket, sys, time
deadline = time.monotonic() + 15
while True:
    try:
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(15)
            asked.connect("/run/ai-client/gateway.sock")
            asked.sendall(b"GET /health HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n")
            if b" 200 " in asked.recv(100):
                sys.exit(0)
    except OSError:
        pass
    if time.monotonic() > deadline:
        sys.exit("not healthy")
    time.sleep(0.5)
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder: where it goes, and with which rights; `source` is the local copy of a file."""

    path: str
    owner: str
    group: str
    mode: str
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Everything that a deploy lays down and does.

    Attributes:
        directories: folders, the outer ones first.
        files: files with the effect that a change has ("reload" or "restart"); the claim is each host's own.
        packed: local path of the packed release tree.
        release: folder that it is unpacked to.
        unpack: command that unpacks and compiles it, and puts it in place by rename.
        health: command that ends with 0 once the service is healthy.
        claims: local copy of each host's claim.
    """

    directories: list[Entry]
    files: list[tuple[Entry, str]]
    packed: str
    release: str
    unpack: str
    health: str
    claims: dict[str, str]

    def as_data(self) -> dict[str, Any]:
        """As the peers' programs read it."""
        names = {"user": USER, "units": UNITS, "claim": CLAIM, "current": CURRENT, "packed_path": PACKED}
        return json.loads(json.dumps(asdict(self) | names))

    @property
    def watched(self) -> list[str]:
        """Every path that must be the same at the end."""
        return [*DIRECTORIES, *(entry.path for entry, _ in self.files), CLAIM, CURRENT, self.release]


def read(root: Path, *, names: list[str], artefacts: Path, scratch: Path) -> Work:
    """The work, off the first of the named hosts, which is deployed; copies of its files go into `scratch`."""
    digest = (root / CURRENT.lstrip("/")).readlink().name
    trees = json.loads((artefacts / "index.json").read_text(encoding="utf-8"))["trees"]
    packed = next(artefacts / tree["file"] for tree in trees.values() if tree["sha256"] == digest)
    release = f"/opt/ai-client/releases/{digest}"
    effects = dict.fromkeys(RELOADED, "reload") | dict.fromkeys(RESTARTED, "restart")
    partial = f"{release}.partial"
    steps = (
        f"rm -rf {partial} && mkdir {partial}",
        f"tar --extract --gzip --no-same-owner --preserve-permissions --directory {partial} --file {PACKED}",
        f"python3 -I -S -c '{_COMPILE}' {partial} {release}",
        f"sync && mv -T {partial} {release}",
    )
    return Work(
        directories=[_entry(root, path) for path in DIRECTORIES],
        files=[(_copied(root, path, scratch / Path(path).name), effect) for path, effect in effects.items()],
        packed=str(packed),
        release=release,
        unpack=" && ".join(steps),
        health=_in_one_line(_HEALTH),
        claims=_claims(names, root, scratch),
    )


def _claims(names: list[str], root: Path, scratch: Path) -> dict[str, str]:
    """Each host's claim: the deployed host's, which is the first, under the other's name."""
    text = (root / CLAIM.lstrip("/")).read_text(encoding="utf-8")
    for name in names:
        (scratch / f"{name}.json").write_text(text.replace(names[0], name), encoding="utf-8")
    return {name: str(scratch / f"{name}.json") for name in names}


def _in_one_line(program: str) -> str:
    """A command that no layer of quoting can change; padded, so that no "=" is in its base64."""
    padded = program.encode().ljust(-(-len(program) // 3) * 3)
    return (
        f"python3 -I -S -c 'import base64; exec(base64.b64decode(\"{base64.b64encode(padded).decode()}\"))'"
    )


def _entry(root: Path, path: str, source: str = "") -> Entry:
    status = (root / path.lstrip("/")).stat()
    owner, group = ("root" if number == 0 else USER for number in (status.st_uid, status.st_gid))
    return Entry(path, owner, group, f"{stat.S_IMODE(status.st_mode):04o}", source)


def _copied(root: Path, path: str, copy: Path) -> Entry:
    copy.write_bytes((root / path.lstrip("/")).read_bytes())
    return _entry(root, path, str(copy))
