"""A root file system with another distribution's layout and tools, and the real applier run in it.

Underneath is the image of a Debian; what differs is laid over it: which interpreter there is, what systemd says it is,
where certificates go, whether SELinux is on. systemd itself is a shell script that keeps what it was told.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from tempfile import TemporaryDirectory
from typing import Any

from applier.on_controller import delivery, round_trips, wire

from tests.ansible.test_role import TEMPLATES, defaults
from tools.hosts.image import ensure_image

PARTS = frozenset({"deploy", "config", "secrets", "verify"})
RUN_TIMEOUT_S = 60
# Stands for the interpreter that an artefact brings.
OWN = Path(sys.base_prefix)
PATH = "/usr/local/bin:/usr/bin"

_SYSTEMCTL = """\
#!/bin/sh
# As much of systemctl as the applier asks for.
echo "$*" >>/told/systemctl
verb=$1; shift
case $verb in
--version) echo "systemd $(cat /told/version) (fake)" ;;
start) for unit; do [ "${unit#-}" != "$unit" ] || touch "/told/active.$unit"; done ;;
stop) for unit; do rm -f "/told/active.$unit"; done ;;
show)
    for unit; do
        case $unit in -*) continue ;; esac
        load=not-found active=inactive
        [ -e "/etc/systemd/system/$unit" ] && load=loaded
        [ -e "/told/active.$unit" ] && active=active
        printf 'Id=%s\\nLoadState=%s\\nActiveState=%s\\nNeedDaemonReload=no\\n\\n' "$unit" "$load" "$active"
    done ;;
esac
"""
_TELLS = '#!/bin/sh\necho "$0 $*" >>/told/{name}\n'
_MAIN = 'print(\'{"ok": true, "checks": {"config": {"ok": true, "detail": ""}}}\')\n'
_CERTIFICATES = ("usr/local/share/ca-certificates", "usr/sbin/update-ca-certificates")


@dataclass(frozen=True)
class Layout:
    """A distribution as the applier meets it.

    Attributes:
        python: the folder of an interpreter of the test machine, which lies at the same place on the host; None for a
            host without one.
        found_at: where the host's own programs find it.
        systemd: its version.
        trust: the folder for certificates of the host's own.
        program: what takes them up.
        selinux: whether it is on.
        umask: of the login.
        no_login: where the shell is that lets nobody in.
        lacks: modules of CPython that the distribution builds its interpreter without.
    """

    python: Path | None
    systemd: int
    trust: str = "/usr/local/share/ca-certificates"
    program: str = "update-ca-certificates"
    selinux: bool = False
    umask: int = 0o022
    found_at: str = "/usr/bin/python3"
    no_login: str = "/usr/sbin/nologin"
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class FakeRoot:
    """A host made of a layout."""

    root: Path
    layout: Layout
    artefacts: Path

    def told(self, name: str) -> str:
        """What a program of the host was called with, a line a call; empty where it was not."""
        path = self.root / "told" / name
        return path.read_text() if path.exists() else ""

    def run(
        self,
        mode: str = "apply",
        *,
        key: str = "hs_test_fake_root_key_0",
        check: bool = False,
        **values: Any,
    ) -> dict[str, Any]:
        """Runs the applier as the action plugin does."""
        given = {
            "ai_artefacts": str(self.artefacts),
            "ai_claim": "fleet/test/a",
            "ai_claim_owner": "fleet/test",
        }
        made = delivery.make_delivery(
            mode=mode,
            parts=PARTS if mode == "apply" else frozenset(),
            check=check,
            values={**defaults(), **given, "ai_gate_seconds": 0, **values},
            secrets={"ai_api_key": key},
            templates=TEMPLATES,
        )
        return round_trips.run(made, program=wire.program_text(), send=self.send, start=wire.find_and_start())

    def send(self, command: str, stdin: bytes) -> tuple[int, str, str]:
        """Runs a command as root, by a shell of the host."""
        argv = [
            "chroot",
            str(self.root),
            "env",
            "-i",
            f"PATH={PATH}",
            "/bin/sh",
            "-c",
            command,
        ]
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            timeout=RUN_TIMEOUT_S,
            check=False,
            umask=self.layout.umask,
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()


class _Service(BaseHTTPRequestHandler):
    """What the service of a host that runs answers."""

    def do_GET(self) -> None:
        self._answer(200, {"ok": True, "checks": {"config": {"ok": True, "detail": ""}}})

    def do_POST(self) -> None:
        is_reload = self.path == "/control/reload"
        self._answer(*((200, {"changed": []}) if is_reload else (504, {"error": {"code": "not_cached"}})))

    def _answer(self, status: int, content: Mapping[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet; a Unix socket has no client address to tell."""


class _Gateway(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True


@contextmanager
def raised(layout: Layout) -> Iterator[FakeRoot]:
    """Mounts a root with the layout, its service answering; nothing of it is left at the end."""
    # A socket's path has to be short.
    with TemporaryDirectory(prefix="acf-") as name, _mounted(layout, Path(name)) as root:
        (root / "run/ai-client").mkdir(parents=True)
        with _Gateway(str(root / "run/ai-client/gateway.sock"), _Service) as gateway:
            threading.Thread(target=gateway.serve_forever, daemon=True).start()
            try:
                yield FakeRoot(root, layout, artefacts(Path(name)))
            finally:
                gateway.shutdown()


@contextmanager
def _mounted(layout: Layout, folder: Path) -> Iterator[Path]:
    image = ensure_image("bookworm", print)
    root, upper, work = (folder / name for name in ("root", "upper", "work"))
    for made in (root, upper, work):
        made.mkdir()
    mounts = [root]
    _mount("-t", "overlay", "fake-root", "-o", f"lowerdir={image},upperdir={upper},workdir={work}", root)
    try:
        _lay_out(root, layout)
        pythons = (layout.python, OWN) if layout.python else (OWN,)
        for source in dict.fromkeys((*pythons, Path("/proc"), Path("/dev"))):
            place = root / str(source).lstrip("/")
            _mount("--bind", source, place)
            mounts.append(place)
        yield root
    finally:
        for mounted in reversed(mounts):
            subprocess.run(["umount", mounted], check=True)


def _mount(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True)


def _lay_out(root: Path, layout: Layout) -> None:
    for name in ("/told", str(layout.python or OWN), str(OWN), layout.trust):
        (root / name.lstrip("/")).mkdir(parents=True, exist_ok=True)
    _lay_out_python(root, layout)
    nologin = root / "usr/sbin/nologin"
    if layout.no_login != "/usr/sbin/nologin":
        nologin.rename(root / layout.no_login.lstrip("/"))
    (root / "told" / "version").write_text(str(layout.systemd))
    programs = {"systemctl": _SYSTEMCTL}
    if layout.trust.lstrip("/") != _CERTIFICATES[0]:
        (root / _CERTIFICATES[0]).rmdir()
        (root / _CERTIFICATES[1]).unlink()
        programs[layout.program] = _TELLS.format(name=layout.program)
    if layout.selinux:
        (root / "sys/fs/selinux").mkdir(parents=True)
        (root / "sys/fs/selinux/enforce").write_text("1")
        programs["restorecon"] = _TELLS.format(name="restorecon")
    for name, text in programs.items():
        path = root / "usr" / "bin" / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755)


def _lay_out_python(root: Path, layout: Layout) -> None:
    """No interpreter but the layout's, where that distribution has it."""
    for found in (*(root / "usr/bin").glob("python3*"), *(root / "usr/local/bin").glob("python3*")):
        found.unlink()
    if layout.python is not None:
        place = root / layout.found_at.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(layout.python / "bin/python3")
        if layout.lacks:
            say_first(place, f"import sys; sys.modules.update(dict.fromkeys({layout.lacks}))")


def say_first(place: Path, text: str) -> None:
    """Makes an interpreter run a line of Python before the program that it is started with."""
    target = place.readlink()
    place.unlink()
    place.write_text(f'#!/bin/sh\nshift 3; loader=$1; shift; exec {target} -I -S -c "{text}; $loader" "$@"\n')
    place.chmod(0o755)


def artefacts(folder: Path) -> Path:
    """An artefact whose trees are healthy: one for Python 3.12, and one with an interpreter of its own."""
    out = folder / "artefacts"
    out.mkdir()
    own = {"python/bin/python3": f'#!/bin/sh\nexec {OWN}/bin/python3 "$@"\n'}
    trees = {tag: _packed(extra) for tag, extra in (("cp312-x86_64", {}), ("own-x86_64", own))}
    index = {}
    for tag, packed in trees.items():
        (out / f"{tag}.tar.gz").write_bytes(packed)
        digest = hashlib.sha256(packed).hexdigest()
        index[tag] = {"file": f"{tag}.tar.gz", "sha256": digest, "size": len(packed), "glibc_min": "2.17"}
    (out / "index.json").write_text(json.dumps({"version": "0.1.0", "trees": index}))
    return out


def _packed(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, text in {"main.py": _MAIN, "lib/mod.py": "X = 1\n", **files}.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text), 0o755 if "bin/" in name else 0o644
            tar.addfile(info, io.BytesIO(text.encode()))
    return gzip.compress(buffer.getvalue(), mtime=0)
