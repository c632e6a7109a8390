"""From role variables to what one host is asked for."""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Template

from ai_client_delivery.artefact import Artefact, read_artefact
from ai_client_delivery.errors import DeliveryError
from ai_client_delivery.rendering import render_config, render_units
from ai_client_delivery.variables import check_key, read_certificates

MODES = ("apply", "rollback", "decommission")
PARTS = ("deploy", "config", "secrets", "verify")

_LONGEST_GATE_S = 900


class Order(NamedTuple):
    """A request as the host reads it, the artefact that it may ask for, and where a decommission keeps files."""

    request: dict[str, Any]
    artefact: Artefact | None = None
    keep_in: Path | None = None


def make_order(
    *,
    mode: str,
    parts: frozenset[str],
    check: bool,
    values: Mapping[str, Any],
    secrets: Mapping[str, Any],
    templates: Mapping[str, Template],
) -> Order:
    """The order for one host. `values` are the role's variables that are not secret, `secrets` the others.

    Raises DeliveryError.
    """
    request = _frame(mode, parts, check=check, values=values)
    if mode == "rollback" and not request["run"]:
        raise DeliveryError("ai_run", "is empty", "name the roll-out that is to be undone")
    if mode != "apply":
        keep_in = values.get("ai_fetch_dir")
        return Order(request, keep_in=Path(keep_in).expanduser() if keep_in else None)
    if "deploy" in parts or "config" in parts:
        request["ca_bundle"] = read_certificates(values["ai_custom_ca"])
    if "config" in parts:
        request["config"] = render_config(templates, values)
    if "secrets" in parts:
        request |= _keys(secrets)
    if "deploy" not in parts:
        return Order(request)
    artefact = read_artefact(
        values["ai_artefacts"], version=values["ai_client_version"], pin=values["ai_client_digest"]
    )
    release = {"version": artefact.version, "trees": artefact.request()}
    return Order(request | release | {"units": render_units(templates, values)}, artefact)


def _frame(mode: str, parts: frozenset[str], *, check: bool, values: Mapping[str, Any]) -> dict[str, Any]:
    """A request with every field, those empty that only some parts fill."""
    return {
        "mode": mode,
        "parts": sorted(parts),
        "check": check,
        "claim": {"name": values["ai_claim"], "owner": values["ai_claim_owner"]},
        "run": values.get("ai_run") or "",
        "gate": _gate(values),
        "tries_keys": bool(values.get("ai_try_keys")),
        "directories": {name: values[f"ai_{name}_dir"] for name in ("config", "cache", "log")},
        "cert_path": values.get("ai_cert_path") or "",
        "socket": values.get("ai_gateway_socket") or "",
        "spool_dir": values.get("ai_batch_spool_dir") or "",
        "health_deadline_s": values.get("ai_health_deadline", 0.0),
        "keep_releases": values.get("ai_keep_releases", 0),
        **dict.fromkeys(("version", "config", "ca_bundle", "key", "key_next"), ""),
        **{name: {} for name in ("trees", "units", "collect")},
    }


def _gate(values: Mapping[str, Any]) -> dict[str, Any]:
    """How the service is watched after a change. Raises DeliveryError."""
    bounds = {
        name: float(values.get(f"ai_gate_{name}") or 0)
        for name in ("seconds", "error_share", "throttled_share", "overhead_ms")
    }
    for name, bound in bounds.items():
        most = 1 if name.endswith("_share") else _LONGEST_GATE_S if name == "seconds" else None
        if bound < 0 or (most is not None and bound > most):
            wanted = "0 or more" if most is None else f"from 0 to {most}"
            raise DeliveryError(f"ai_gate_{name}", f"is {bound:g}", f"write a number {wanted}")
    overhead_s = bounds.pop("overhead_ms") / 1000
    return {**bounds, "overhead_s": overhead_s, "metrics": _metrics_address(values)}


def _metrics_address(values: Mapping[str, Any]) -> str:
    """Where the host shows its own counters, seen from itself; empty where it shows none."""
    if not (values.get("ai_enable_metrics") and values.get("ai_export_prometheus")):
        return ""
    host = str(values["ai_metrics_host"])
    if host in (str(IPv4Address(0)), str(IPv6Address(0))):
        host = "::1" if ":" in host else "127.0.0.1"
    return f"{f'[{host}]' if ':' in host else host}:{values['ai_metrics_port']}"


def _keys(secrets: Mapping[str, Any]) -> dict[str, str]:
    key, key_next = (check_key(name, secrets.get(name)) for name in ("ai_api_key", "ai_api_key_next"))
    if not key:
        remedy = "set it (Vault), or HOLYSHEEP_API_KEY in the controller's environment"
        raise DeliveryError("ai_api_key", "is empty", remedy)
    return {"key": key, "key_next": key_next}
