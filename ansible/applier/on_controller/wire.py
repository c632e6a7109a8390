"""What goes to a host, and what comes back."""

import hashlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import DeliveryError, WithoutPythonError
from .plain import plain

APPLIER = Path(__file__).resolve().parent.parent
PACKAGE = "on_host"
PROTOCOL = 1
# How a run goes about it: the same state is desired by a look and by a run.
_MANNER = ("check", "run", "gate", "tries_keys", "tries_upstream_keys")
PREFIX = "ai-client-applier: "
# All that is ever in the host's process arguments.
# Where distributions have one (RHEL 8 keeps the system's own out of the way); the last is that of a release of ours.
PYTHONS = (
    "/usr/bin/python3",
    "/usr/libexec/platform-python",
    "/usr/local/bin/python3",
    "/opt/ai-client/current/python/bin/python3",
)
_WITHOUT = "ai-client-applier found no python on "
# Names of files are the request's bytes, whatever the login's locale; without one, Python 3.6 knows ASCII alone.
_LOCALE = "LC_ALL=C.UTF-8"
_OWN_PATH = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
# A folder that programs may not be started from is passed over. What a run that was killed left goes after an hour.
# One line without an exclamation mark (\041): csh, as a login's shell, takes neither within quotes.
_BRING = """\
umask 077; {path};
for b in /var/tmp /opt; do
    find "$b" -maxdepth 1 -name 'ai-client-python.*' -mmin +60 -exec rm -rf {{}} + 2>/dev/null;
    d=$(mktemp -d "$b/ai-client-python.XXXXXX") || continue;
    printf '#\\041/bin/sh\\n' >"$d/x" && chmod 700 "$d/x" && "$d/x" 2>/dev/null && break;
    rm -rf "$d"; d=;
done;
[ -n "$d" ] || {{ echo "no folder to start programs from in /var/tmp and /opt" >&2; exit 1; }};
trap 'rm -rf "$d"' EXIT; trap 'exit 1' HUP INT TERM;
head -c {size} >"$d/tree" && echo "{digest}  $d/tree" | sha256sum -c - >/dev/null &&
    tar -xzf "$d/tree" -C "$d" python && rm "$d/tree" || exit 1;
{start}""".replace("\n", " ")
LOADER = "import sys;i=sys.stdin.buffer;exec(i.read(int(i.readline())))"


def program_text() -> bytes:
    """The whole program as a host reads it: the bootstrap and the modules, each after its length."""
    return encode_program((APPLIER / "bootstrap.py").read_bytes(), modules())


def modules() -> dict[str, str]:
    """The program's modules by name."""
    paths = sorted((APPLIER / PACKAGE).glob("*.py"))
    return {_module_name(path): plain(path.read_text("utf-8")) for path in paths}


def encode_program(bootstrap: bytes, modules: Mapping[str, str]) -> bytes:
    """The bootstrap after its length; then the number of modules, and each after its name and length."""
    texts = {name: text.encode() for name, text in modules.items()}
    parts = [b"%b %d\n%b" % (name.encode(), len(text), text) for name, text in texts.items()]
    return b"%d\n%b%d\n%b" % (len(bootstrap), bootstrap, len(parts), b"".join(parts))


def _module_name(path: Path) -> str:
    return PACKAGE if path.stem == "__init__" else f"{PACKAGE}.{path.stem}"


def encode_input(program: bytes, request: Mapping[str, Any], artefact: bytes = b"") -> bytes:
    """All of standard input for one run. What does not change the desired state goes apart from it."""
    manner = {name: request[name] for name in _MANNER if name in request}
    desired = {name: value for name, value in request.items() if name not in _MANNER}
    # Another program may compare otherwise: what it finds right is found anew.
    known = {"protocol": PROTOCOL, "program": hashlib.sha256(program).hexdigest()}
    texts = (_json({**known, **desired}), _json(manner), artefact)
    sizes = " ".join(str(len(text)) for text in texts)
    return program + f"{sizes}\n".encode() + b"".join(texts)


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


def command(python: str) -> tuple[str, ...]:
    """The program's start on a host, as arguments."""
    return (python, "-I", "-S", "-c", LOADER)


def start(python: str) -> str:
    """The program's start by an interpreter of the host, for a shell."""
    return f"{_LOCALE} exec {shlex.join(command(python))}"


def find_and_start() -> str:
    """The program's start by the first interpreter that the host has, for a shell; says so where it has none."""
    tried = " ".join(PYTHONS)
    found = f'for p in {tried}; do [ -x "$p" ] && {start("$p")}; done'.replace("'$p'", '"$p"')
    return f'{found}; {_OWN_PATH}; echo "{_WITHOUT}$(uname -m)"; cat >/dev/null'


def bring_and_start(*, size: int, digest: str) -> str:
    """The program's start, for a shell, by the interpreter of a packed tree that comes first on standard input.

    It lies in a folder of root's for as long as the program runs, and is used where its digest is right alone.
    """
    python = "$d/python/bin/python3"
    # No `exec`: the shell removes the folder at the end.
    begin = f"{_LOCALE} {shlex.join(command(python))}".replace(f"'{python}'", f'"{python}"')
    return _BRING.format(path=_OWN_PATH, size=size, digest=digest, start=begin)


def decode_output(*, status: int, stdout: str, stderr: str) -> dict[str, Any]:
    """The answer among whatever else a login prints, also before it on its line. Raises DeliveryError without one."""
    for line in stdout.splitlines():
        _, has_none, machine = line.partition(_WITHOUT)
        if has_none:
            raise WithoutPythonError(machine.strip())
        _, is_answer, text = line.partition(PREFIX)
        if is_answer:
            answer: dict[str, Any] = json.loads(text)
            if "health_text" in answer:
                answer["health"] = json.loads(answer["health_text"])
            return answer
    said = " ".join((stderr or stdout).split())[-400:]
    remedy = "check the login, sudo and ansible_python_interpreter (Python 3.6 or newer) of the host"
    raise DeliveryError("the applier", f"gave no answer (status {status}): {said or 'no output'}", remedy)
