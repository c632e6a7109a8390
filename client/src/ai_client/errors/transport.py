"""No (whole) answer came."""

from __future__ import annotations

from ai_client.errors.base import AIClientError


class TransportError(AIClientError):
    """No whole answer came. `sent`: the request may have reached the upstream and been executed."""

    http_status = 502
    code = "upstream_unreachable"
    default_remedy = "Check the network, the proxy and the upstream's status."

    def __init__(
        self,
        culprit: str,
        reason: str,
        *,
        remedy: str | None = None,
        request_id: str = "",
        sent: bool = False,
    ) -> None:
        super().__init__(culprit, reason, remedy=remedy, request_id=request_id)
        self.sent = sent


class ConnectError(TransportError):
    """No connection: unknown name, no route, refused, or the proxy said no. Nothing was sent."""

    code = "connect_failed"
    default_remedy = "Check base_url, DNS, proxy_url and the firewall."


def clock_remedy(verify_reason: str) -> str | None:
    """What to do where a certificate is refused for the time alone; None for another reason, in OpenSSL's words."""
    if "expired" not in verify_reason and "not yet valid" not in verify_reason:
        return None
    return "Compare this host's clock with the real time; if it is right, the upstream has to renew its certificate."


class TLSVerificationError(ConnectError):
    """The upstream's certificate was not accepted (`verify_reason`, `tls_version`).

    Remedy: set cert_path to the CA bundle that signed it; never turn verification off. One that seems to have expired
    may be seen by a host whose clock is wrong.
    """

    code = "tls_verification_failed"
    default_remedy = "Set cert_path to the CA bundle that signed it, or renew the certificate."

    def __init__(self, culprit: str, *, verify_reason: str, tls_version: str) -> None:
        reason = f"TLS certificate not accepted: {verify_reason} ({tls_version})"
        super().__init__(culprit, reason, remedy=clock_remedy(verify_reason))
        self.verify_reason = verify_reason
        self.tls_version = tls_version


class TransportTimeoutError(TransportError):
    """`phase` ("connect", "headers" or "read") took longer than `timeout_s`.

    Remedy: raise connection_timeout, timeout or read_timeout, or ask for less output.
    """

    http_status = 504
    code = "upstream_timeout"
    default_remedy = "Raise the timeout of this phase, or ask for less output."

    def __init__(self, culprit: str, *, phase: str, timeout_s: float, sent: bool) -> None:
        super().__init__(culprit, f"no {_WAITED_FOR.get(phase, phase)} within {timeout_s:g} s", sent=sent)
        self.phase = phase
        self.timeout_s = timeout_s


_WAITED_FOR = {"connect": "connection", "headers": "response headers", "read": "data"}


class ConnectionLostError(TransportError):
    """The connection was reset or closed before the answer was whole. Remedy: try again if safe."""

    code = "connection_lost"
    default_remedy = "Try again if sending it twice is safe (resend_unsafe)."


class PoolTimeout(TransportError):  # noqa: N818 - a name that users know
    """All `size` connections were busy (`in_use`) for `timeout_s`. Nothing was sent.

    Remedy: raise connection_pool_size, or lower max_concurrent_requests.
    """

    http_status = 503
    code = "pool_timeout"
    default_remedy = "Raise connection_pool_size or lower max_concurrent_requests."

    def __init__(self, culprit: str, *, size: int, in_use: int, timeout_s: float) -> None:
        super().__init__(culprit, f"all {size} connections busy ({in_use} in use) for {timeout_s:g} s")
        self.size = size
        self.in_use = in_use
        self.timeout_s = timeout_s


class HostResourcesError(TransportError):
    """This host has no descriptor or memory left for the request: says nothing of the upstream.

    Remedy: raise LimitNOFILE or MemoryMax, or lower max_concurrent_requests.
    """

    http_status = 503
    code = "host_resources"
    default_remedy = "Raise LimitNOFILE or MemoryMax of the service, or lower max_concurrent_requests."
