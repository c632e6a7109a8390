"""The role's variables: what may be set, and what is wrong with what was set."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional
from urllib.parse import urlsplit

import yaml

from .errors import DeliveryError

SECRETS = (
    "ai_api_key",
    "ai_api_key_next",
    "ai_upstream_keys",
    "ai_upstream_keys_next",
    "ai_coordination_password",
)
_HOLYSHEEP = "holysheep.ai"
_KEY = re.compile(r"hs_(?:live|test)_[A-Za-z0-9_-]{8,256}")

_ANY_KEY = re.compile(r"[\x21\x23-\x26\x28-\x7e]{8,8192}")
_LONGEST_PASSWORD = 1024
_UPSTREAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

Options = dict[str, dict[str, Any]]


def load_options(role: Path) -> dict[str, Options]:
    """The options of each entry point in the role's argument_specs."""
    content = yaml.safe_load((role / "meta" / "argument_specs.yml").read_bytes())
    return {name: entry["options"] for name, entry in content["argument_specs"].items()}


def unknown_names(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """A warning for each `ai_…` variable that the role does not have."""
    known = list(known)
    warnings = []
    for name in sorted(set(names) - set(known)):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        warnings.append(f"{name} is no variable of the role ai_client and has no effect{hint}")
    return warnings


def key_prefixes(values: Mapping[str, Any]) -> Optional[tuple[str, ...]]:
    """What the default upstream's key begins with, as declared; None where it is HolySheep's."""
    declared = tuple(word for word in re.split(r"[\s,]+", str(values.get("ai_key_prefix") or "")) if word)
    host = urlsplit(str(values.get("ai_base_url") or "")).hostname or _HOLYSHEEP
    is_holysheep = host == _HOLYSHEEP or host.endswith(f".{_HOLYSHEEP}")
    return declared or (None if is_holysheep else ())


def check_key(name: str, value: Any, prefixes: Optional[Sequence[str]] = None) -> str:
    """The key without white space around it. Raises DeliveryError, which shows nothing of it.

    `prefixes` are those that it may begin with, none for any; None for HolySheep's.
    """
    key = str(value or "").strip()
    if prefixes is not None:
        if key and not (_ANY_KEY.fullmatch(key) and key.startswith(tuple(prefixes) or "")):
            wanted = f" that begins with {' or '.join(prefixes)}" if prefixes else ""
            raise DeliveryError(name, f"is not a key{wanted}", "give only the key, without spaces and quotes")
        return key
    if key and not _KEY.fullmatch(key):
        prefix = key[:8] if key.startswith(("hs_live_", "hs_test_")) else "neither hs_live_ nor hs_test_"
        raise DeliveryError(
            name, f"is not a key (it begins with {prefix})", "give only the key, as hs_live_…"
        )
    return key


def check_upstream_keys(name: str, value: Any) -> dict[str, str]:
    """Keys by the names of their upstreams, in any form. Raises DeliveryError, which shows nothing of them."""
    if not isinstance(value or {}, dict):
        raise DeliveryError(name, "is no dictionary", "write each key under the name of its upstream")
    keys = {upstream: str(key or "").strip() for upstream, key in (value or {}).items()}
    for upstream, key in keys.items():
        if not _UPSTREAM.fullmatch(str(upstream)):
            remedy = "use letters, digits, dot, dash and underscore, up to 63"
            raise DeliveryError(name, f"{upstream!r} is not the name of an upstream", remedy)
        if key and not _ANY_KEY.fullmatch(key):
            raise DeliveryError(
                f"{name}.{upstream}", "is not a key", "give only the key, without spaces and quotes"
            )
    return keys


def check_password(name: str, value: Any) -> str:
    """A password on one line, without blanks around it. Raises DeliveryError, which shows nothing of it."""
    password = str(value or "").strip()
    if len(password.splitlines()) > 1 or len(password) > _LONGEST_PASSWORD:
        raise DeliveryError(
            name, "is no password", f"give it on one line of {_LONGEST_PASSWORD} characters at most"
        )
    return password


def read_certificates(value: str) -> str:
    """The text of `ai_custom_ca`, which is PEM or the path of a file on the controller."""
    if not value or "-----BEGIN" in value:
        return value
    try:
        return Path(value).expanduser().read_text("utf-8")
    except OSError as error:
        raise DeliveryError(
            "ai_custom_ca", f"{value}: {error.strerror}", "give PEM text or a file's path"
        ) from error
