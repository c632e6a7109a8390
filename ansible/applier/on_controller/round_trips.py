"""The round trips with one host."""

import base64
import errno
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from .delivery import Delivery
from .errors import DeliveryError, WithoutPythonError
from .wire import bring_and_start, decode_output, encode_input

# Status, standard output and standard error of a shell's command for what is written to its standard input.
Send = Callable[[str, bytes], tuple[int, str, str]]
# The same, of the command that starts the program.
_Start = Callable[[bytes], tuple[int, str, str]]
Answer = dict[str, Any]

_PIECE_BYTES = 8 << 20


def run(delivery: Delivery, *, program: bytes, send: Send, start: str) -> Answer:
    """One run of the applier; a second one where the host lacks the release, or a Python.

    Args:
        delivery: what is asked for.
        program: the applier.
        send: runs a command on the host.
        start: the command that starts a program there, by the host's Python.

    Raises:
        DeliveryError: there was no answer, or the host can't be served.
    """
    try:
        return _run(delivery, program=program, send=partial(send, start))
    except WithoutPythonError as lacking:
        return _run_by_the_artefacts(delivery, lacking.machine, program=program, send=send)


def _run_by_the_artefacts(delivery: Delivery, machine: str, *, program: bytes, send: Send) -> Answer:
    """One run by the interpreter that the artefact has, which goes along, and is what the service runs on, too."""
    tag, culprit = f"own-{machine}", "this host"
    artefact = delivery.artefact
    if artefact is None:
        raise DeliveryError(culprit, "has no Python, and no release with one", "install python3 on it")
    if delivery.request["python"] == "host":
        raise DeliveryError(culprit, "has no Python", "install python3 on it, or set ai_python: auto")
    if tag not in artefact.trees:
        remedy = "build it by tools/artefact/build --own, or install python3 on the host"
        raise DeliveryError(culprit, f"has no Python, and the artefact no tree {tag} that brings one", remedy)
    tree = artefact.read_tree(tag)
    digest = artefact.trees[tag]["sha256"]
    request = {**delivery.request, "python": "own"}
    stdin = tree + encode_input(program, request, b"" if request["check"] else tree)
    status, stdout, stderr = send(bring_and_start(size=len(tree), digest=digest), stdin)
    answer = decode_output(status=status, stdout=stdout, stderr=stderr)
    note = f"no Python on this host: looked at by that of the artefact ({tag}, {digest[:12]})"
    return {**answer, "notes": [*(answer.get("notes") or ()), note]}


def _run(delivery: Delivery, *, program: bytes, send: _Start) -> Answer:
    if delivery.keep_in is not None:
        _keep_files(delivery, program=program, send=send)
    answer = _ask(delivery.request, program=program, send=send)
    if not answer["needs"]:
        return answer
    if delivery.artefact is None:
        raise DeliveryError(
            "the applier", f"asks for the tree {answer['needs']}, which it was not offered", "run again"
        )
    artefact = delivery.artefact.read_tree(answer["needs"])
    return _ask(delivery.request, program=program, send=send, artefact=artefact)


def _ask(request: Mapping[str, Any], *, program: bytes, send: _Start, artefact: bytes = b"") -> Answer:
    status, stdout, stderr = send(encode_input(program, request, artefact))
    return decode_output(status=status, stdout=stdout, stderr=stderr)


def _keep_files(delivery: Delivery, *, program: bytes, send: _Start) -> None:
    """Copies ledger and audit log of a host that is about to be decommissioned."""
    request = {**delivery.request, "mode": "collect"}
    listed = _ask(request, program=program, send=send)
    if listed["failed"]:
        raise DeliveryError("fetching ledger and audit log", listed["message"], "or leave ai_fetch_dir empty")
    if request["check"] or not listed["files"] or delivery.keep_in is None:
        return
    name = request["claim"]["name"].replace("/", "_")
    try:
        delivery.keep_in.mkdir(parents=True, exist_ok=True)
        # Two runs may keep files of one claim at the same time.
        with TemporaryDirectory(dir=delivery.keep_in, prefix=f".{name}.", suffix=".partial") as folder:
            kept = Path(folder) / "kept"
            kept.mkdir(mode=0o700)
            for file, place in apart(listed["files"]):
                _fetch(kept / place, _pieces(file, request, program=program, send=send))
            _put(kept, delivery.keep_in, name)
    except OSError as error:
        where = error.filename or str(delivery.keep_in)
        remedy = (
            "make room there or name another folder in ai_fetch_dir, and run again; the host is as it was"
        )
        raise DeliveryError(str(where), error.strerror or "can't be written", remedy) from error


def apart(files: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], Path]]:
    """Where each file is kept: by its name, or below its folder's where files of several folders share the name."""
    names = [Path(file["path"]).name for file in files]
    return [
        (file, Path(name) if names.count(name) == 1 else Path(_folder_name(file["path"])) / name)
        for file, name in zip(files, names, strict=True)
    ]


def _folder_name(path: str) -> str:
    """A folder's path as one name: no two folders have the same."""
    return quote(str(Path(path).parent).lstrip("/"), safe=" ")


def _fetch(path: Path, pieces: Iterator[bytes]) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with path.open("wb") as out:
        for piece in pieces:
            out.write(piece)
        out.flush()
        os.fsync(out.fileno())


def _put(kept: Path, parent: Path, name: str) -> None:
    """Gives the folder its name, or the next one that is free: a host of the same claim may have been here before."""
    for candidate in chain([name], (f"{name}-{number}" for number in count(2))):
        if (parent / candidate).exists():
            continue
        try:
            kept.rename(parent / candidate)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return


def _pieces(
    file: Mapping[str, Any], request: Mapping[str, Any], *, program: bytes, send: _Start
) -> Iterator[bytes]:
    for offset in range(0, file["size"], _PIECE_BYTES):
        collect = {"path": file["path"], "offset": offset, "size": _PIECE_BYTES}
        answer = _ask({**request, "collect": collect}, program=program, send=send)
        if answer["failed"]:
            raise DeliveryError(file["path"], answer["message"], "run again")
        yield zlib.decompress(base64.b64decode(answer["files"][0]["data"]))
