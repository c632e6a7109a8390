"""Stands where a host's interpreter does, and does what it is sent to a host that is a folder: `… FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

from applier.on_host.apply import Run
from applier.on_host.errors import ApplyError
from applier.on_host.program import respond
from applier.on_host.request import parse_request
from applier.on_host.response import Response
from applier.on_host.tree import Tree

from tests.ansible.folder_host import FolderHost, new_rig


def read_parts(stdin: BinaryIO) -> list[bytes]:
    """Desired state, manner and artefact, behind the program that a real host would run."""
    stdin.read(int(stdin.readline()))
    for _ in range(int(stdin.readline())):
        stdin.read(int(stdin.readline().split()[1]))
    return [stdin.read(int(size)) for size in stdin.readline().split()]


def main(folder: Path) -> None:
    """Answers as the program does."""
    desired, manner, packed = read_parts(sys.stdin.buffer)
    if not folder.exists():
        new_rig(folder)
    try:
        run = Run(parse_request(desired, manner), Tree(str(folder)), FolderHost(folder), packed)
        response = respond(run)
    except ApplyError as error:
        response = Response(failed=True, message=str(error))
    print(response.encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
