"""What every transport must do with TLS and proxies, run over all of them against real servers."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from ai_client.configure.health import check_tls
from ai_client.errors import ConfigurationError, ConnectError, TLSVerificationError
from ai_client.settings import loads
from ai_client.transport.base import TransportOptions
from tests.client.transport.calls import Make, post
from tests.client.transport.upstreams import Connection, answer_all, serving

FUTURE = datetime.now(UTC) + timedelta(days=3650)


@pytest.fixture
def authority(tmp_path: Path) -> tuple[trustme.CA, str]:
    """A CA of our own, and its PEM file."""
    ca = trustme.CA()
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return ca, str(path)


def server_tls(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


async def test_a_custom_ca_is_trusted(make: Make, authority: tuple[trustme.CA, str]) -> None:
    """Beside the host's own store."""
    ca, path = authority
    async with serving(answer_all, tls=server_tls(ca.issue_cert("localhost"))) as upstream:
        answer = await make(ca_path=path).fetch(post(upstream.url))
    assert answer.status == 200


async def test_a_tls_connection_is_kept_and_used_again(make: Make, authority: tuple[trustme.CA, str]) -> None:
    """A handshake for each request would cost more than the request."""
    ca, path = authority
    async with serving(answer_all, tls=server_tls(ca.issue_cert("localhost"))) as upstream:
        transport = make(ca_path=path)
        for body in (b"{}", b"x" * 300_000, b"{}"):
            await transport.fetch(post(upstream.url, body=body))
        assert (upstream.connections, len(upstream.requests)) == (1, 3)
        await transport.aclose()


async def test_an_unknown_ca_is_refused_with_its_reason(
    make: Make, authority: tuple[trustme.CA, str]
) -> None:
    """Nothing was sent; the reason is OpenSSL's, the remedy ours."""
    ca, _ = authority
    async with serving(answer_all, tls=server_tls(ca.issue_cert("localhost"))) as upstream:
        with pytest.raises(TLSVerificationError, match="Set cert_path") as caught:
            await make().fetch(post(upstream.url))
    assert "self-signed certificate" in caught.value.verify_reason or "issuer" in caught.value.verify_reason
    assert "TLSv1.3" in caught.value.tls_version
    assert not caught.value.sent
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ({"not_after": datetime(2001, 1, 1, tzinfo=UTC)}, "has expired"),
        ({"not_before": FUTURE}, "is not yet valid"),
    ],
)
async def test_a_certificate_that_is_refused_for_the_time_points_to_the_clock(
    make: Make, authority: tuple[trustme.CA, str], times: dict[str, datetime], said: str
) -> None:
    """A host whose clock is off by years sees each certificate so, and no CA bundle helps; the health check says it."""
    ca, path = authority
    async with serving(answer_all, tls=server_tls(ca.issue_cert("localhost", **times))) as upstream:
        with pytest.raises(TLSVerificationError, match=f"{said}.*Compare this host's clock"):
            await make(ca_path=path).fetch(post(upstream.url))
        base_url = upstream.url.removesuffix("/chat/completions")
        settings = loads(f"[api]\nbase_url = {base_url}\n", path="ai-client.conf")
        check = await check_tls(settings, TransportOptions(ca_path=path))
    assert not check.is_ok
    assert f"certificate {said}. Compare this host's clock" in check.detail


async def test_a_certificate_for_another_host_is_refused(
    make: Make, authority: tuple[trustme.CA, str]
) -> None:
    """The name counts, not only the signature."""
    ca, path = authority
    async with serving(answer_all, tls=server_tls(ca.issue_cert("elsewhere.test"))) as upstream:
        with pytest.raises(TLSVerificationError, match=r"[Hh]ostname mismatch"):
            await make(ca_path=path).fetch(post(upstream.url))


async def test_verification_can_be_turned_off(make: Make, authority: tuple[trustme.CA, str]) -> None:
    """verify_ssl = false, for those who must."""
    ca, _ = authority
    async with serving(answer_all, tls=server_tls(ca.issue_cert("localhost"))) as upstream:
        answer = await make(verify_tls=False).fetch(post(upstream.url))
    assert answer.status == 200


async def test_a_ca_file_that_is_none_is_a_configuration_error(make: Make, tmp_path: Path) -> None:
    """Said when the transport is made, with the path."""
    broken = tmp_path / "ca.pem"
    broken.write_text("no certificate")
    with pytest.raises(ConfigurationError, match=r"cert_path .*ca\.pem"):
        make(ca_path=str(broken))
    with pytest.raises(ConfigurationError, match=r"cert_path .*missing"):
        make(ca_path=str(tmp_path / "missing"))


async def test_plain_requests_go_to_the_proxy_with_the_whole_url(make: Make) -> None:
    """And with the proxy's own password, which the upstream never sees."""
    async with serving(answer_all) as proxy:
        transport = make(proxy_url=f"http://user:secret@localhost:{proxy.port}")
        answer = await transport.fetch(post("http://upstream.invalid/v1/models"))
    assert answer.status == 200
    request = proxy.requests[0]
    assert request.startswith(b"POST http://upstream.invalid/v1/models HTTP/1.1")
    assert b"proxy-authorization: basic" in request.lower()


async def test_tls_goes_through_the_proxy_in_a_tunnel(make: Make, authority: tuple[trustme.CA, str]) -> None:
    """CONNECT, then TLS to the upstream itself: the proxy never sees the request."""
    ca, path = authority

    async def tunnel(connection: Connection) -> None:
        head = await connection.read_request()
        port = int(head.split()[1].rpartition(b":")[2])
        reader, writer = await asyncio.open_connection("localhost", port)
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\n")

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        await asyncio.gather(pump(connection.reader, writer), pump(reader, connection.writer))

    async with (
        serving(answer_all, tls=server_tls(ca.issue_cert("localhost"))) as upstream,
        serving(tunnel) as proxy,
    ):
        transport = make(proxy_url=f"http://localhost:{proxy.port}", ca_path=path)
        answer = await transport.fetch(post(upstream.url))
        await transport.aclose()
    assert answer.status == 200
    assert proxy.requests[0].startswith(b"CONNECT localhost:")
    assert b"hs_test" not in b"".join(proxy.requests)


async def test_a_proxy_that_refuses_is_a_connect_error(make: Make, authority: tuple[trustme.CA, str]) -> None:
    """Nothing reached the upstream."""

    async def refuse(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")

    async with serving(refuse) as proxy:
        transport = make(proxy_url=f"http://localhost:{proxy.port}")
        with pytest.raises(ConnectError, match="407") as caught:
            await transport.fetch(post("https://localhost:1/v1"))
    assert not caught.value.sent
