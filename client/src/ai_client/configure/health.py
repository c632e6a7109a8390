"""What `ai-client --health-check` looks at: configuration, key, TLS chain, upstream, disk."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ai_client.errors import (
    AIClientError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    MaxRetriesExceeded,
    ModelNotFoundError,
    PermissionDeniedError,
    RateLimitError,
    UpstreamError,
)
from ai_client.errors.transport import clock_remedy
from ai_client.settings import LoadedKey, Settings
from ai_client.transport.base import TransportOptions
from ai_client.transport.tls import make_tls_context

LEAST_FREE_BYTES = 64_000_000
PROBE_TIMEOUT_S = 5.0
CERTIFICATE_WARNING_DAYS = 14

CHECKS = ("config", "key", "tls", "upstream", "disk", "service", "coordination")


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check; `detail` says what was found, or culprit and remedy."""

    is_ok: bool
    detail: str
    #: When the certificate that was seen expires, in seconds since the epoch; None where none was.
    expires_at_s: float | None = None


Report = dict[str, Check]

# Asks the upstream for its models. Raises AIClientError.
UpstreamProbe = Callable[[], Awaitable[object]]


def as_json(report: Report) -> dict[str, Any]:
    """`{"ok": …, "checks": {name: {"ok": …, "detail": …}}}`, in the order of `CHECKS`."""
    checks = {
        name: {"ok": report[name].is_ok, "detail": report[name].detail} for name in CHECKS if name in report
    }
    return {"ok": all(check["ok"] for check in checks.values()), "checks": checks}


def with_check(answer: dict[str, Any], name: str, check: Check | None) -> dict[str, Any]:
    """What `as_json` gave, with one more check where there is one."""
    if check is None:
        return answer
    checks = {**answer["checks"], name: {"ok": check.is_ok, "detail": check.detail}}
    return {"ok": answer["ok"] and check.is_ok, "checks": checks}


def from_json(answer: dict[str, Any]) -> Report:
    """The reverse of `as_json`."""
    return {name: Check(bool(check["ok"]), str(check["detail"])) for name, check in answer["checks"].items()}


async def examine(
    settings: Settings, key: LoadedKey, *, options: TransportOptions, upstream: Awaitable[Check]
) -> Report:
    """All checks but `service`, which only the caller can make, for a configuration and key that were read.

    `upstream` is the check of it, such as `check_upstream`.
    """
    tls, answers = await asyncio.gather(check_tls(settings, options), upstream)
    return {
        "config": Check(True, f"read; upstream {settings.api.base_url}"),
        "key": Check(True, f"from {key.source}, fingerprint {key.fingerprint}"),
        "tls": tls,
        "upstream": answers,
        "disk": check_disk((settings.caching.cache_dir, settings.logging.log_dir)),
    }


async def check_tls(settings: Settings, options: TransportOptions) -> Check:
    """Whether the upstream's certificate chain verifies, and for how long it is good."""
    address = urlsplit(settings.api.base_url)
    if address.scheme != "https":
        return Check(True, "the upstream is plain http: nothing to verify")
    if settings.security.proxy_url:
        return Check(True, "behind a proxy: verified by the request to the upstream")
    host, port = address.hostname or "", address.port or 443
    try:
        context = make_tls_context(options)
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLCertVerificationError as exc:
        other = "Fix the certificate, or name its CA in [security] cert_path."
        remedy = clock_remedy(exc.verify_message) or other
        return Check(False, f"{host}:{port}: {exc.verify_message}. {remedy}")
    except ConfigurationError as exc:
        return Check(False, str(exc))
    except (OSError, TimeoutError) as exc:
        return Check(False, f"{host}:{port} can't be reached ({_reason(exc)}); see the upstream check")
    certificate = writer.get_extra_info("peercert") or {}
    version = writer.get_extra_info("ssl_object").version()
    writer.close()
    return _certificate(certificate, version=version, now_s=time.time())


def _certificate(certificate: dict[str, Any], *, version: str, now_s: float) -> Check:
    if "notAfter" not in certificate:
        return Check(True, f"{version}, not verified ([security] verify_ssl is off)")
    expires_at_s = float(ssl.cert_time_to_seconds(certificate["notAfter"]))
    days = (expires_at_s - now_s) / 86_400
    hint = "; renew it soon" if days < CERTIFICATE_WARNING_DAYS else ""
    return Check(True, f"{version}, certificate good for {days:.0f} days{hint}", expires_at_s)


async def check_upstream(settings: Settings, *, probe: UpstreamProbe) -> Check:
    """Whether the upstream answers and takes the key."""
    started_s = time.monotonic()
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            await probe()
    except AIClientError as exc:
        return _upstream_trouble(settings, exc.last if isinstance(exc, MaxRetriesExceeded) else exc)
    except TimeoutError:
        remedy = "check the network, the proxy and [api] base_url"
        return Check(False, f"{settings.api.base_url} does not answer in {PROBE_TIMEOUT_S:g} s; {remedy}")
    return Check(True, f"answers in {(time.monotonic() - started_s) * 1000:.0f} ms")


def _upstream_trouble(settings: Settings, error: AIClientError) -> Check:
    """Not every provider lists its models, and a minute may be full: that it answers is what is known then."""
    url = f"{settings.api.base_url}/models"
    match error:
        case AuthenticationError() | PermissionDeniedError():
            remedy = "install a valid key and reload the service"
            return Check(False, f"refuses the key with {error.http_status}; {remedy}")
        case ModelNotFoundError() | BadRequestError(status=404 | 405 | 501):
            return Check(True, f"answers, without a list of models ({url})")
        case RateLimitError():
            return Check(True, f"answers, and has no room now ({error.reason})")
        case UpstreamError():
            return Check(False, f"{url} answers {error.status}; check [api] base_url")
        case _:
            return Check(False, str(error))


def check_disk(folders: tuple[Path, ...]) -> Check:
    """Whether the folders that the service writes to exist and have room."""
    least_free = None
    for folder in folders:
        try:
            free = shutil.disk_usage(folder).free
        except OSError as exc:
            return Check(False, f"{folder}: {exc.strerror}; make the folder, owned by the service's user")
        if free < LEAST_FREE_BYTES:
            remedy = f"free space: at least {LEAST_FREE_BYTES // 1_000_000} MB are needed"
            return Check(False, f"{folder} has {free // 1_000_000} MB free; {remedy}")
        least_free = free if least_free is None else min(least_free, free)
    return Check(True, f"{(least_free or 0) // 1_000_000} MB free")


def _reason(exc: BaseException) -> str:
    return "timeout" if isinstance(exc, TimeoutError) else (getattr(exc, "strerror", None) or str(exc))
