"""What goes to a host, and what comes back."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ai_client_delivery.errors import DeliveryError

APPLIER = Path(__file__).resolve().parent.parent
PACKAGE = "ai_client_applier"
PROTOCOL = 1
# How a run goes about it: the same state is desired by a look and by a run.
_MANNER = ("check", "run", "gate", "tries_keys")
PREFIX = "ai-client-applier: "
# All that is ever in the host's process arguments.
LOADER = "import sys;i=sys.stdin.buffer;exec(i.read(int(i.readline())))"


def program_text() -> bytes:
    """The whole program as a host reads it: the bootstrap and the modules, each after its length."""
    return encode_program((APPLIER / "bootstrap.py").read_bytes(), modules())


def modules() -> dict[str, str]:
    """The program's modules by name."""
    return {_module_name(path): path.read_text("utf-8") for path in sorted((APPLIER / PACKAGE).glob("*.py"))}


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


def decode_output(*, status: int, stdout: str, stderr: str) -> dict[str, Any]:
    """The answer among whatever else a login prints. Raises DeliveryError where there is none."""
    for line in stdout.splitlines():
        if line.startswith(PREFIX):
            answer: dict[str, Any] = json.loads(line.removeprefix(PREFIX))
            if "health_text" in answer:
                answer["health"] = json.loads(answer["health_text"])
            return answer
    said = " ".join((stderr or stdout).split())[-400:]
    remedy = "check the login, sudo and ansible_python_interpreter (Python 3.11 or newer) of the host"
    raise DeliveryError("the applier", f"gave no answer (status {status}): {said or 'no output'}", remedy)
