"""The role's variables: what may be set, and what is wrong with what was set."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from ai_client_delivery.errors import DeliveryError

SECRETS = ("ai_api_key", "ai_api_key_next")
_KEY = re.compile(r"hs_(?:live|test)_[A-Za-z0-9_-]{8,256}")

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


def check_key(name: str, value: Any) -> str:
    """The key without white space around it. Raises DeliveryError, which shows nothing of it."""
    key = str(value or "").strip()
    if key and not _KEY.fullmatch(key):
        prefix = key[:8] if key.startswith(("hs_live_", "hs_test_")) else "neither hs_live_ nor hs_test_"
        raise DeliveryError(
            name, f"is not a key (it begins with {prefix})", "give the key alone, as hs_live_…"
        )
    return key


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
