"""The program's start on a host: reads the request from standard input, answers with one line."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .apply import Run, apply, refuse_without_root
from .errors import ApplyError
from .host import Host
from .request import Request, parse_request
from .response import Response
from .tree import Tree
from .unchanged_check import LOCKED


def main(desired: bytes, manner: bytes, artefact: bytes) -> int:
    """Runs one request: what is desired, in which manner, and the artefact where the host asked for it."""
    try:
        request = parse_request(desired, manner)
        refuse_without_root(os.geteuid())
        response = respond(Run(request, Tree(), Host(), artefact))
    except ApplyError as error:
        response = Response(failed=True, message=str(error))
    sys.stdout.write(response.encode() + "\n")
    sys.stdout.flush()
    return 0


def respond(run: Run) -> Response:
    """Does what the request says, alone on this host. What the system refuses becomes an ApplyError."""
    try:
        with _alone(run.tree, run.request), _modes_as_given():
            return _modes(run)
    except OSError as error:
        from .storage import explain

        raise explain(run.tree, error) from error


@contextmanager
def _modes_as_given() -> Iterator[None]:
    """A login with umask 077 would leave what the service can't read, bytecode first."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


def _modes(run: Run) -> Response:
    if run.request.mode == "apply":
        return apply(run)
    # Imported here: most runs compile neither.
    if run.request.mode == "rollback":
        from .rollback import roll_back

        return roll_back(run)
    from .decommission import collect, decommission

    return collect(run) if run.request.mode == "collect" else decommission(run)


@contextmanager
def _alone(tree: Tree, request: Request) -> Iterator[None]:
    """Holds the host's lock; many may look at once, one alone may change."""
    descriptor = os.open(tree.real(LOCKED), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if request.check else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ApplyError(
                "this host", "is being changed by another run", "wait for that run to end"
            ) from error
        yield
    finally:
        os.close(descriptor)
