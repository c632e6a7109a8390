"""The names in an upstream's list of models, in any of the shapes that were seen. Pure."""

from __future__ import annotations


def model_names(value: object) -> list[str]:
    """Of `{"data": [{"id": …}]}`, a bare list, `{"models": [{"name": …}]}` (Ollama), or names instead of objects."""
    if isinstance(value, dict):
        value = next((value[name] for name in ("data", "models") if isinstance(value.get(name), list)), ())
    if not isinstance(value, list | tuple):
        return []
    return [name for name in map(_name, value) if name]


def _name(entry: object) -> str:
    if isinstance(entry, dict):
        entry = next((entry[key] for key in ("id", "name", "model") if isinstance(entry.get(key), str)), "")
    return entry if isinstance(entry, str) else ""
