"""`ai-client --health-check`: asks the service; where it does not answer, looks as far as this user can."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from typing import Any

from ai_client.cli.service_socket import ServiceUnreachableError, ask, socket_path

SERVICE_TIMEOUT_S = 15.0


def run(options: argparse.Namespace) -> int:
    """Print the report: 0 where every check is fine, else 1."""
    path = socket_path(options.socket, options.config)
    try:
        _, report = ask(path, "GET", "/health", timeout_s=SERVICE_TIMEOUT_S)
        reason = None if "checks" in report else f"the service on {path} refuses: {_refusal(report)}"
    except ServiceUnreachableError as exc:
        report, reason = {}, str(exc)
    if reason is not None:
        report = asyncio.run(_without_service(options, reason))
    if options.json:
        print(json.dumps(report))
    else:
        for name, check in report["checks"].items():
            print(f"{'ok  ' if check['ok'] else 'FAIL'} {name:<9}{check['detail']}")
    return 0 if report["ok"] else 1


def _refusal(report: dict[str, Any]) -> str:
    error = report.get("error")
    return str(error.get("message")) if isinstance(error, dict) else "no report in its answer"


async def _without_service(options: argparse.Namespace, reason: str) -> dict[str, Any]:
    from ai_client import health  # noqa: PLC0415  not needed where the service answers
    from ai_client.health import Check, Report  # noqa: PLC0415
    from ai_client.settings import ConfigError, KeyMissingError, load, read_key  # noqa: PLC0415

    report: Report = {"service": Check(False, reason)}
    unknown = "not looked at: the configuration or the key can't be used"
    settings = key = None
    try:
        settings = load(options.config)
        report["config"] = Check(True, f"read; upstream {settings.api.base_url}")
    except ConfigError as exc:
        report["config"] = Check(False, str(exc))
    try:
        key = read_key(key_file=options.key_file, environment=os.environ)
        report["key"] = Check(True, f"from {key.source}, fingerprint {key.fingerprint}")
    except KeyMissingError as exc:
        report["key"] = Check(False, str(exc))
    if settings is not None and key is not None:
        from ai_client.client import AIAPIClient  # noqa: PLC0415
        from ai_client.gateway.assembly import client_options  # noqa: PLC0415

        knobs = client_options(settings)
        async with AIAPIClient(key.secret, settings.api.base_url, options=knobs) as client:
            upstream = health.check_upstream(settings, probe=client.models)
            report |= await health.examine(settings, key, options=knobs.transport, upstream=upstream)
    else:
        report |= {name: Check(False, unknown) for name in ("tls", "upstream")}
    if settings is not None:
        folders = (settings.caching.cache_dir, settings.logging.log_dir)
        report["disk"] = health.check_disk(folders)
    return health.as_json(report)
