"""The round trips with one host."""

import base64
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any

from ai_client_delivery.errors import DeliveryError
from ai_client_delivery.order import Order
from ai_client_delivery.wire import decode_output, encode_input

# Status, standard output and standard error of the applier for what is written to its standard input.
Send = Callable[[bytes], tuple[int, str, str]]
Answer = dict[str, Any]

_PIECE_BYTES = 8 << 20


def run(order: Order, *, program: bytes, send: Send) -> Answer:
    """One run of the applier; a second one where the host lacks the release. Raises DeliveryError."""
    if order.keep_in is not None:
        _keep_files(order, program=program, send=send)
    answer = _ask(order.request, program=program, send=send)
    if not answer["needs"]:
        return answer
    if order.artefact is None:
        raise DeliveryError(
            "the applier", f"asks for the tree {answer['needs']}, which it was not offered", "run again"
        )
    artefact = order.artefact.read_tree(answer["needs"])
    return _ask(order.request, program=program, send=send, artefact=artefact)


def _ask(request: Mapping[str, Any], *, program: bytes, send: Send, artefact: bytes = b"") -> Answer:
    status, stdout, stderr = send(encode_input(program, request, artefact))
    return decode_output(status=status, stdout=stdout, stderr=stderr)


def _keep_files(order: Order, *, program: bytes, send: Send) -> None:
    """Copies ledger and audit log of a host that is about to be decommissioned."""
    request = {**order.request, "mode": "collect"}
    listed = _ask(request, program=program, send=send)
    if listed["failed"]:
        raise DeliveryError("fetching ledger and audit log", listed["message"], "or leave ai_fetch_dir empty")
    if request["check"] or not listed["files"] or order.keep_in is None:
        return
    name = request["claim"]["name"].replace("/", "_")
    partial = order.keep_in / f".{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, mode=0o700)
    for file in listed["files"]:
        with (partial / Path(file["path"]).name).open("wb") as out:
            for piece in _pieces(file, request, program=program, send=send):
                out.write(piece)
    partial.rename(_free(order.keep_in, name))


def _free(parent: Path, name: str) -> Path:
    """A folder that is not there yet: a host of the same claim may have been decommissioned before."""
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(parent / name for name in names if not (parent / name).exists())


def _pieces(
    file: Mapping[str, Any], request: Mapping[str, Any], *, program: bytes, send: Send
) -> Iterator[bytes]:
    for offset in range(0, file["size"], _PIECE_BYTES):
        collect = {"path": file["path"], "offset": offset, "size": _PIECE_BYTES}
        answer = _ask({**request, "collect": collect}, program=program, send=send)
        if answer["failed"]:
            raise DeliveryError(file["path"], answer["message"], "run again")
        yield zlib.decompress(base64.b64decode(answer["files"][0]["data"]))
