"""Judges a preview: `PULUMI_ENABLE_STREAMING_JSON_PREVIEW=1 pulumi preview --json | python -m policy.preview`.

The same rules as the pack's, for an engine whose language host starts no policy pack. A preview shows no secret, and
none is needed: what rules ask for is in the stack's inventory. Exit status 0 where no rule is broken, 1 where one is,
2 where the preview cannot be judged.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from policy.rules import RULES
from policy.subjects import STACK, Resource, setting


class PreviewError(Exception):
    """The preview cannot be judged: why, and what to do."""


def read(lines: Iterable[str]) -> tuple[dict[str, str], list[Resource]]:
    """Configuration and resources of a preview, from the engine's events.

    Raises:
        PreviewError: the preview failed, or does not show the stack's inventory.
    """
    config: dict[str, str] = {}
    resources: dict[str, Resource] = {}
    is_whole = is_finished = False
    for event in _events(lines):
        is_whole = event is not None
        if event is None:
            break
        is_finished = is_finished or "summaryEvent" in event
        if prelude := event.get("preludeEvent"):
            config.update(prelude.get("config") or {})
        if shown := event.get("resourcePreEvent"):
            resources |= _resource(shown["metadata"], "inputs")
        if (shown := event.get("resOutputsEvent")) and shown["metadata"]["type"] == STACK:
            resources |= _resource(shown["metadata"], "outputs")
        if (message := event.get("diagnosticEvent")) and message["severity"] == "error":
            raise PreviewError(f"the preview failed: {message['message'].strip()}")
    if not any("inventory" in resource["props"] for resource in resources.values()):
        raise PreviewError(
            "the preview shows no inventory; set PULUMI_ENABLE_STREAMING_JSON_PREVIEW=1, and preview with --json"
        )
    if not (is_whole and is_finished):
        what = "it ends before its summary" if is_whole else "one of its lines is not an event"
        raise PreviewError(
            f"the preview is incomplete ({what}); pass everything that 'pulumi preview --json' prints"
        )
    return config, list(resources.values())


def _events(lines: Iterable[str]) -> Iterator[dict[str, Any] | None]:
    """Every event; None for a line that begins as one and is none."""
    for line in lines:
        if line.startswith("{"):
            try:
                event = json.loads(line)
            except ValueError:
                event = None
            yield event


def _resource(metadata: Mapping[str, Any], part: str) -> dict[str, Resource]:
    new = metadata.get("new")
    if new is None:
        return {}
    urn = metadata["urn"]
    name = urn.rsplit("::", 1)[-1]
    return {urn: {"urn": urn, "type": metadata["type"], "name": name, "props": new.get(part) or {}}}


def judge(config: Mapping[str, str], resources: Iterable[Resource]) -> list[str]:
    """A line for each breach of a rule."""
    context = setting(config, shows_secrets=False)
    judged = list(resources)
    return [
        f"{rule.name}: {resource['name']}: {breach}"
        for rule in RULES
        for resource in judged
        for breach in rule.judge(resource, context)
    ]


def main() -> int:
    """Reads a preview on standard input and prints the breaches."""
    try:
        broken = judge(*read(sys.stdin))
    except PreviewError as error:
        sys.stderr.write(f"policy: {error}\n")
        return 2
    sys.stdout.writelines(f"{line}\n" for line in broken)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
