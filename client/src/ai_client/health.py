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

from ai_client.settings import ApiKey, Settings

LEAST_FREE_BYTES = 64_000_000
PROBE_TIMEOUT_S = 5.0
CERTIFICATE_WARNING_DAYS = 14

CHECKS = ("config", "key", "tls", "upstream", "disk", "service")


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check; `detail` says what was found, or culprit and remedy."""

    is_ok: bool
    detail: str


Report = dict[str, Check]

# Asks the upstream for its models with the key and gives the status.
UpstreamProbe = Callable[[], Awaitable[int]]


def as_json(report: Report) -> dict[str, Any]:
    """`{"ok": …, "checks": {name: {"ok": …, "detail": …}}}`, in the order of `CHECKS`."""
    checks = {
        name: {"ok": report[name].is_ok, "detail": report[name].detail} for name in CHECKS if name in report
    }
    return {"ok": all(check["ok"] for check in checks.values()), "checks": checks}


def from_json(answer: dict[str, Any]) -> Report:
    """The reverse of `as_json`."""
    return {name: Check(bool(check["ok"]), str(check["detail"])) for name, check in answer["checks"].items()}


async def examine(settings: Settings, key: ApiKey, *, probe: UpstreamProbe) -> Report:
    """All checks but `service`, which only the caller can make, for a configuration and key that were read."""
    tls, upstream = await asyncio.gather(check_tls(settings), check_upstream(settings, probe=probe))
    return {
        "config": Check(True, f"read; upstream {settings.api.base_url}"),
        "key": Check(True, f"from {key.source}, fingerprint {key.fingerprint}"),
        "tls": tls,
        "upstream": upstream,
        "disk": check_disk((settings.caching.cache_dir, settings.logging.log_dir)),
    }


def tls_context(settings: Settings) -> ssl.SSLContext:
    """What verifies the upstream: the system's store and `cert_path`, or nothing where `verify_ssl` is off.

    Raises OSError or ssl.SSLError where `cert_path` can't be used.
    """
    context = ssl.create_default_context()
    if not settings.security.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    extra = settings.security.cert_path
    if extra is not None:
        context.load_verify_locations(
            cafile=None if extra.is_dir() else str(extra), capath=str(extra) if extra.is_dir() else None
        )
    return context


async def check_tls(settings: Settings) -> Check:
    """Whether the upstream's certificate chain verifies, and for how long it is good."""
    address = urlsplit(settings.api.base_url)
    if address.scheme != "https":
        return Check(True, "the upstream is plain http: nothing to verify")
    if settings.security.proxy_url:
        return Check(True, "behind a proxy: verified by the request to the upstream")
    host, port = address.hostname or "", address.port or 443
    try:
        context = tls_context(settings)
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLCertVerificationError as exc:
        remedy = "mend the certificate, or name its CA in [security] cert_path"
        return Check(False, f"{host}:{port}: {exc.verify_message}; {remedy}")
    except (OSError, TimeoutError) as exc:
        return Check(False, f"{host}:{port} can't be reached ({_reason(exc)}); see the upstream check")
    certificate = writer.get_extra_info("peercert") or {}
    version = writer.get_extra_info("ssl_object").version()
    writer.close()
    return _certificate(certificate, version=version, now_s=time.time())


def _certificate(certificate: dict[str, Any], *, version: str, now_s: float) -> Check:
    if "notAfter" not in certificate:
        return Check(True, f"{version}, not verified ([security] verify_ssl is off)")
    days = (ssl.cert_time_to_seconds(certificate["notAfter"]) - now_s) / 86_400
    hint = "; renew it soon" if days < CERTIFICATE_WARNING_DAYS else ""
    return Check(True, f"{version}, certificate good for {days:.0f} days{hint}")


async def check_upstream(settings: Settings, *, probe: UpstreamProbe) -> Check:
    """Whether the upstream answers and takes the key."""
    started_s = time.monotonic()
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            status = await probe()
    except (OSError, TimeoutError) as exc:
        remedy = "check the network, the proxy and [api] base_url"
        return Check(False, f"{settings.api.base_url} does not answer ({_reason(exc)}); {remedy}")
    took_ms = (time.monotonic() - started_s) * 1000
    if status in (401, 403):
        return Check(False, f"refuses the key with {status}; lay down a valid key and reload the service")
    if status >= 500 or status == 404:
        return Check(False, f"{settings.api.base_url}/models answers {status}; check [api] base_url")
    return Check(True, f"answers {status} in {took_ms:.0f} ms")


def check_disk(folders: tuple[Path, ...]) -> Check:
    """Whether the folders that the service writes to exist and have room."""
    least_free = None
    for folder in folders:
        try:
            free = shutil.disk_usage(folder).free
        except OSError as exc:
            return Check(False, f"{folder}: {exc.strerror}; make the folder, owned by the service's user")
        if free < LEAST_FREE_BYTES:
            remedy = f"make room: at least {LEAST_FREE_BYTES // 1_000_000} MB are needed"
            return Check(False, f"{folder} has {free // 1_000_000} MB free; {remedy}")
        least_free = free if least_free is None else min(least_free, free)
    return Check(True, f"{(least_free or 0) // 1_000_000} MB free")


def _reason(exc: BaseException) -> str:
    return "timeout" if isinstance(exc, TimeoutError) else (getattr(exc, "strerror", None) or str(exc))
