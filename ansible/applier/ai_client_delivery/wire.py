"""What goes to a host, and what comes back."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ai_client_delivery.errors import DeliveryError

APPLIER = Path(__file__).resolve().parent.parent
PACKAGE = "ai_client_applier"
PROTOCOL = 1
PREFIX = "ai-client-applier: "
# All that is ever in the host's process arguments.
LOADER = "import sys;i=sys.stdin.buffer;exec(i.read(int(i.readline())))"


def program_text() -> bytes:
    """The whole program as a host reads it: the bootstrap and the modules, each after its length."""
    bootstrap = (APPLIER / "bootstrap.py").read_bytes()
    modules = {
        _module_name(path): path.read_text("utf-8") for path in sorted((APPLIER / PACKAGE).glob("*.py"))
    }
    sources = json.dumps(modules).encode()
    return b"%d\n%b%d\n%b" % (len(bootstrap), bootstrap, len(sources), sources)


def _module_name(path: Path) -> str:
    return PACKAGE if path.stem == "__init__" else f"{PACKAGE}.{path.stem}"


def encode_input(program: bytes, request: Mapping[str, Any], artefact: bytes = b"") -> bytes:
    """All of standard input for one run."""
    text = json.dumps({"protocol": PROTOCOL, **request}).encode()
    return b"%b%d %d\n%b%b" % (program, len(text), len(artefact), text, artefact)


def command(python: str) -> tuple[str, ...]:
    """The program's start on a host, as arguments."""
    return (python, "-I", "-S", "-c", LOADER)


def decode_output(*, status: int, stdout: str, stderr: str) -> dict[str, Any]:
    """The answer among whatever else a login prints. Raises DeliveryError where there is none."""
    for line in stdout.splitlines():
        if line.startswith(PREFIX):
            answer: dict[str, Any] = json.loads(line.removeprefix(PREFIX))
            return answer
    said = " ".join((stderr or stdout).split())[-400:]
    remedy = "check the login, sudo and ansible_python_interpreter (Python 3.11 or newer) of the host"
    raise DeliveryError("the applier", f"gave no answer (status {status}): {said or 'no output'}", remedy)
