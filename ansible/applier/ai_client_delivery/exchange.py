"""The round trips with one host."""

import base64
import zlib
from collections.abc import Callable, Iterator, Mapping
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
    folder = order.keep_in / request["claim"]["name"].replace("/", "_") if order.keep_in else Path()
    if request["check"] or not listed["files"]:
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for file in listed["files"]:
        target = folder / Path(file["path"]).name
        partial = target.with_name(f".{target.name}.partial")
        with partial.open("wb") as out:
            for piece in _pieces(file, request, program=program, send=send):
                out.write(piece)
        partial.replace(target)


def _pieces(
    file: Mapping[str, Any], request: Mapping[str, Any], *, program: bytes, send: Send
) -> Iterator[bytes]:
    for offset in range(0, file["size"], _PIECE_BYTES):
        collect = {"path": file["path"], "offset": offset, "size": _PIECE_BYTES}
        answer = _ask({**request, "collect": collect}, program=program, send=send)
        if answer["failed"]:
            raise DeliveryError(file["path"], answer["message"], "run again")
        yield zlib.decompress(base64.b64decode(answer["files"][0]["data"]))
