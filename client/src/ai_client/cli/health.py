"""`ai-client --health-check`: asks the service; where it does not answer, looks as far as this user can."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai_client.cli.host import config_of, settings_of, socket_of
from ai_client.cli.service_socket import ServiceUnreachableError, ask
from ai_client.settings import ConfigError, KeyMissingError, LoadedKey, Settings

if TYPE_CHECKING:
    from ai_client.configure.health import Check, Report

SERVICE_TIMEOUT_S = 15.0


def run(options: argparse.Namespace) -> int:
    """Print the report: 0 where every check is fine, else 1."""
    reason = None
    report: dict[str, Any] = {}
    try:
        path = socket_of(options)
        _, report = ask(path, "GET", "/health", timeout_s=SERVICE_TIMEOUT_S)
        if "checks" not in report:
            reason = f"the service on {path} refuses: {_refusal(report)}"
    except ServiceUnreachableError as exc:
        reason = str(exc)
    except ConfigError:
        # Which socket to ask stands in the file: the check of it is the one that fails.
        reason = ""
    if reason is not None:
        report = asyncio.run(_without_service(options, reason))
    if options.json:
        print(json.dumps(report))
    else:
        width = max(len("upstream"), *map(len, report["checks"]))
        for name, check in report["checks"].items():
            print(f"{'ok  ' if check['ok'] else 'FAIL'} {name:<{width}} {check['detail']}")
        for each in report.get("upstreams", ()):
            print(_line_of(each))
    return 0 if report["ok"] else 1


def _line_of(upstream: dict[str, Any]) -> str:
    """How one of several upstreams stands; it decides nothing, as others may answer in its place."""
    if upstream["ok"] is None:
        state, text = "?   ", "not asked yet"
    elif upstream["ok"]:
        state, text = "ok  ", f"answered {upstream['answered_s_ago']:.0f} s ago"
    else:
        state, text = "down", f"the last request ended with {upstream['fault']}"
    left = [f"{each['model']} is left alone for {each['for_s']:.0f} s" for each in upstream["parked"]]
    left += [f"{model}: breaker open" for model in upstream["breakers"]]
    told = "; ".join((text, *left))
    return f"{state} upstream {upstream['name']} ({upstream['host']}): {told}; key {upstream['key']}"


def _refusal(report: dict[str, Any]) -> str:
    error = report.get("error")
    return str(error.get("message")) if isinstance(error, dict) else "no report in its answer"


async def _without_service(options: argparse.Namespace, reason: str) -> dict[str, Any]:
    """What can be looked at from here. A check that needs what another one misses is left out: one cause, one line."""
    from ai_client.configure import health  # noqa: PLC0415  not needed where the service answers
    from ai_client.configure.health import Check  # noqa: PLC0415

    report: Report = {"service": Check(False, reason)} if reason else {}
    is_personal = config_of(options) is None
    settings = None
    try:
        settings = settings_of(options)
        source = "none, so the defaults" if is_personal else "read"
        report["config"] = Check(True, f"{source}; upstream {settings.api.base_url}")
    except ConfigError as exc:
        report["config"] = Check(False, str(exc))
    key, report["key"] = _key(options, settings)
    if settings is not None and key is not None:
        report = await _asked(settings, key) | report
    if settings is not None:
        folders = (settings.caching.cache_dir, settings.logging.log_dir)
        # A user's own are made by `ai-client serve`, in what is there.
        report["disk"] = health.check_disk(tuple(map(_nearest, folders)) if is_personal else folders)
    return health.as_json(report)


def _key(options: argparse.Namespace, settings: Settings | None) -> tuple[LoadedKey | None, Check]:
    from ai_client.configure.health import Check  # noqa: PLC0415
    from ai_client.configure.sources import key_of  # noqa: PLC0415

    try:
        api = None if settings is None else settings.api
        key = key_of(api, key_file=options.key_file, environment=os.environ)
    except KeyMissingError as exc:
        if config_of(options) is None and exc.is_absent and options.key_file is None:
            return None, Check(True, "none: `ai-client serve` answers from the built-in simulator")
        return None, Check(False, str(exc))
    return key, Check(True, f"from {key.source}, fingerprint {key.fingerprint}")


async def _asked(settings: Settings, key: LoadedKey) -> Report:
    """What only the upstream can tell."""
    from ai_client.configure import health  # noqa: PLC0415
    from ai_client.configure.assembly import client_beside_the_service, transport_options  # noqa: PLC0415

    async with client_beside_the_service(settings, key) as client:
        upstream = health.check_upstream(settings, probe=client.models)
        return await health.examine(settings, key, options=transport_options(settings), upstream=upstream)


def _nearest(folder: Path) -> Path:
    """The folder, or the first above it that is there."""
    return next(filter(Path.exists, (folder, *folder.parents)), folder)
