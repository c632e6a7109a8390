"""What a reload does to a host's part in a shared quota: all of what it may change, or nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ai_client.configure.launch import Launch
from ai_client.configure.sources import Sources
from ai_client.errors import ConfigurationError
from ai_client.gateway.process.service import Service
from tests.client.service_rig import TEST_KEY

_MORE = 1_000


def _lay(folder: Path, *, rate: int, more: str = "", engine: str = "redis://127.0.0.1:1") -> None:
    (folder / "ai-client.conf").write_text(
        f"[api]\nbase_url = http://127.0.0.1:1/v1\n{more}[performance]\nrate_limit = {rate}\n"
        f"[coordination]\nendpoint = {engine}\nuser = fleet\npassword_file = {folder}/password\nhost = h\n"
    )


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """One that shares a quota and calls an engine that never answers."""
    (tmp_path / "state").mkdir()
    (tmp_path / "key").write_text(TEST_KEY)
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "password").write_text("the-first")
    _lay(tmp_path, rate=20)
    sources = Sources(
        config_path=tmp_path / "ai-client.conf",
        key_file=tmp_path / "key",
        environment={"STATE_DIRECTORY": str(tmp_path / "state")},
        launch=Launch(("ai-client",), Path("ai-client"), Path("ai-client")),
    )
    made = Service(sources, operators=frozenset({0}), announce=lambda _: None)
    quota = made._quota
    quota.start()
    assert quota._seat is not None
    await quota._begin(quota._seat)
    yield made
    await quota.stop()
    await made._assembly.aclose()
    made._window.close()


def _asked(service: Service) -> int:
    """The most that the host asks the engine for, however many wait."""
    coordinator = service._quota._coordinator
    assert coordinator is not None
    admission = type("Crowd", (), {"queued": lambda _: 10**9})()
    coordinator._admission = admission
    [(_, _, demand)] = coordinator._uses()
    return demand


def _share(service: Service) -> int:
    assert service._quota.window is not None
    return service._quota.window.requests.share


@pytest.mark.parametrize("engine", ["redis://127.0.0.1:1", "redis://127.0.0.1:2"])
async def test_a_raised_rate_limit_is_asked_for_and_remembered(
    tmp_path: Path, service: Service, engine: str
) -> None:
    """Neither takes a new process, not even where something else does."""
    before = _asked(service)
    _lay(tmp_path, rate=_MORE, engine=engine)
    service._take(*service._sources.read())
    assert _asked(service) > max(before, _MORE)
    assert service._window._slots >= _asked(service)
    _lay(tmp_path, rate=20)
    service._take(*service._sources.read())
    assert _asked(service) == before


async def test_a_password_is_taken_with_all_the_rest_or_not_at_all(tmp_path: Path, service: Service) -> None:
    """Where the client can't be made anew the old configuration serves on, the engine's user in it."""
    quota = service._quota
    before = (quota._endpoint, _asked(service), _share(service))
    (tmp_path / "password").write_text("the-next")
    (tmp_path / "ca.pem").write_text("no certificate")
    _lay(tmp_path, rate=_MORE, more="timeout = 7\n[security]\n" + f"cert_path = {tmp_path}/ca.pem\n")
    with pytest.raises(ConfigurationError):
        service._take(*service._sources.read())
    assert (quota._endpoint, _asked(service), _share(service)) == before
    _lay(tmp_path, rate=_MORE, more="timeout = 7\n")
    service._take(*service._sources.read())
    assert quota._endpoint is not None
    assert quota._endpoint.password == "the-next"
    assert _asked(service) > _MORE
