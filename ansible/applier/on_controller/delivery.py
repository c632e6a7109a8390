"""From role variables to what one host is asked for."""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Template

from .artefact import UNBUILT, Artefact, read_artefact
from .errors import DeliveryError
from .rendering import render_config, render_units
from .variables import check_key, check_password, check_upstream_keys, key_prefixes, read_certificates

MODES = ("apply", "rollback", "decommission")
PARTS = ("deploy", "config", "secrets", "verify")

_LONGEST_GATE_S = 900
# What bounds each variable of the gate from above.
_MOST_OF_GATE = {
    "ai_gate_seconds": _LONGEST_GATE_S,
    "ai_gate_error_share": 1,
    "ai_gate_throttled_share": 1,
    "ai_gate_overhead_ms": None,
}


class Delivery(NamedTuple):
    """A request as the host reads it, the artefact that it may ask for, and where a decommission keeps files."""

    request: dict[str, Any]
    artefact: Artefact | None = None
    keep_in: Path | None = None


def make_delivery(
    *,
    mode: str,
    parts: frozenset[str],
    check: bool,
    values: Mapping[str, Any],
    secrets: Mapping[str, Any],
    templates: Mapping[str, Template],
) -> Delivery:
    """The order for one host. `values` are the role's variables that are not secret, `secrets` the others.

    Raises DeliveryError.
    """
    request = _frame(mode, parts, check=check, values=values)
    if mode == "rollback" and not request["run"]:
        raise DeliveryError("ai_run", "is empty", "name the roll-out that is to be undone")
    if mode != "apply":
        keep_in = values.get("ai_fetch_dir")
        return Delivery(request, keep_in=Path(keep_in).expanduser() if keep_in else None)
    if "deploy" in parts or "config" in parts:
        request["ca_bundle"] = read_certificates(values["ai_custom_ca"])
    if "config" in parts:
        request["config"] = render_config(templates, values)
    if "secrets" in parts:
        request |= _keys(secrets, values)
    if "deploy" not in parts:
        return Delivery(request)
    request["units"] = render_units(templates, values)
    if check and values["ai_artefacts"] == UNBUILT:
        return Delivery(request)
    artefact = read_artefact(
        values["ai_artefacts"], version=values["ai_client_version"], pin=values["ai_client_digest"]
    )
    return Delivery(request | {"version": artefact.version, "trees": artefact.request()}, artefact)


def _needs_key(values: Mapping[str, Any]) -> bool:
    """Whether a key is laid down: not where requests go unsigned, or are signed by what the host has itself."""
    return bool(values.get("ai_needs_key", True)) and (values.get("ai_key_from") or "file") == "file"


def _frame(mode: str, parts: frozenset[str], *, check: bool, values: Mapping[str, Any]) -> dict[str, Any]:
    """A request with every field, those empty that only some parts fill."""
    return {
        "mode": mode,
        "parts": sorted(parts),
        "check": check,
        "claim": {
            "name": values["ai_claim"],
            "owner": values["ai_claim_owner"],
            "lineage": values.get("ai_claim_lineage") or "",
        },
        "takes_over": values.get("ai_take_over") or "",
        "needs_consent": bool(values.get("ai_needs_consent")),
        "consent": values.get("ai_consent") or "",
        "adopts_account": bool(values.get("ai_adopt_account")),
        "run": values.get("ai_run") or "",
        "gate": _gate(values),
        "tries_keys": bool(values.get("ai_try_keys")) and _needs_key(values),
        # A look tries none, and a host's look-only key may be of a release that does not know this.
        **({} if check else {"tries_upstream_keys": bool(values.get("ai_try_keys"))}),
        "directories": {name: values[f"ai_{name}_dir"] for name in ("config", "cache", "log")},
        "cert_path": values.get("ai_cert_path") or "",
        "socket": values.get("ai_gateway_socket") or "",
        "spool_dir": values.get("ai_batch_spool_dir") or "",
        "health_deadline_s": values.get("ai_health_deadline", 0.0),
        "python": values.get("ai_python") or "auto",
        "keep_releases": values.get("ai_keep_releases", 0),
        **dict.fromkeys(("version", "config", "ca_bundle", "key", "key_next"), ""),
        **{name: {} for name in ("trees", "units", "collect")},
    }


def _gate(values: Mapping[str, Any]) -> dict[str, Any]:
    """How the service is watched after a change. Raises DeliveryError."""
    watched = {name: float(values.get(name) or 0) for name in _MOST_OF_GATE}
    for name, value in watched.items():
        most = _MOST_OF_GATE[name]
        if value < 0 or (most is not None and value > most):
            wanted = "0 or more" if most is None else f"from 0 to {most}"
            raise DeliveryError(name, f"is {value:g}", f"write a number {wanted}")
    bounds = {name.removeprefix("ai_gate_"): value for name, value in watched.items()}
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


def _keys(secrets: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    prefixes = key_prefixes(values)
    key, key_next = (
        check_key(name, secrets.get(name), prefixes) for name in ("ai_api_key", "ai_api_key_next")
    )
    if not key and not _needs_key(values):
        # The service starts once its key file is there; the client never sends this one.
        key = "no-key-is-needed"
    if not key:
        remedy = "set it (Vault), or HOLYSHEEP_API_KEY in the controller's environment"
        raise DeliveryError("ai_api_key", "is empty", remedy)
    name = "ai_coordination_password"
    return {
        "key": key,
        "key_next": key_next,
        "upstream_keys": _upstream_keys(secrets),
        "coordination_password": check_password(name, secrets.get(name)),
    }


def _upstream_keys(secrets: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """By name, each with the one that a rotation goes to."""
    current, following = (
        check_upstream_keys(name, secrets.get(name)) for name in ("ai_upstream_keys", "ai_upstream_keys_next")
    )
    return {
        name: {"key": key, "next": following.get(name, "")} for name, key in sorted(current.items()) if key
    }
