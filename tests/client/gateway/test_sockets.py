"""The Unix socket's file: made for a service, and removed by none but that service."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from ai_client.gateway.http.sockets import BoundFile, Listeners, open_listeners
from ai_client.gateway.process import handover
from ai_client.settings import GatewaySettings


def _listeners(path: Path) -> Listeners:
    return open_listeners(GatewaySettings(socket=path, port=0), {})


def test_a_stop_takes_the_file_away(tmp_path: Path) -> None:
    """Twice is fine."""
    path = tmp_path / "gateway.sock"
    listeners = _listeners(path)
    assert path.is_socket()
    for _ in range(2):
        listeners.close(keep_path=False)
        assert not path.exists()


@pytest.mark.parametrize("is_handed_over", [False, True])
def test_what_has_the_name_by_now_is_left_alone(tmp_path: Path, is_handed_over: bool) -> None:
    """benoitc/gunicorn#476, libuv/libuv#1332: the next service listens there; its inode may be the one of before."""
    path = tmp_path / "gateway.sock"
    before = _listeners(path)
    bound = before.bound
    if is_handed_over:
        bound = handover.bound_of({"sockets": {}, **handover.told_of(bound)})
    path.unlink()
    after = _listeners(path)
    Listeners(before.unix, None, bound).close(keep_path=False)
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
    after.close(keep_path=False)
    assert not path.exists()


def test_a_file_that_can_not_be_removed_fails_no_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file system became read-only, as after an error of its disk: requests under way end all the same."""
    listeners = _listeners(tmp_path / "gateway.sock")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(30, os.strerror(30))

    monkeypatch.setattr(Path, "unlink", refuse)
    listeners.close(keep_path=False)
    assert listeners.unix.fileno() == -1


def test_a_release_that_handed_over_without_a_mark_leaves_the_file_to_the_next(tmp_path: Path) -> None:
    """As it was before there were marks."""
    path = tmp_path / "gateway.sock"
    listeners = _listeners(path)
    assert handover.bound_of({"bound_path": None}) is None
    assert handover.bound_of({"bound_path": str(path)}) == BoundFile(path, None)
    Listeners(listeners.unix, None, BoundFile(path, None)).close(keep_path=False)
    assert not path.exists()
