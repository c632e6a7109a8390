"""Real previews of this project to judge, in clones whose stacks never contact a host."""

import json
from pathlib import Path
from typing import Any

from policy import preview
from policy.subjects import Resource
from tests.fleet.clones import Clone, Run, clone
from tests.infra.stacks import HOST_KEY, KEY, shipped


def complete() -> dict[str, Any]:
    """The shipped production stack with everything that `up` needs, and no probe: its hosts are nobody's."""
    config = shipped("production") | {"probe": False}
    for group in config["groups"].values():
        for host in group.get("hosts", {}).values():
            host["hostKeys"] = [HOST_KEY]
    return config


def checkout(folder: Path) -> Clone:
    """A clone with a stack `production` that has a key."""
    made = clone(folder / "clone", state=folder / "state", stack="production")
    made.pulumi("stack", "init", "production")
    made.configure(complete())
    made.pulumi("config", "set", "--secret", "apiKey", "--stack", "production", stdin=KEY)
    return made


def shown(run: Run) -> tuple[dict[str, str], list[Resource]]:
    """Configuration and resources of a preview."""
    return preview.read(run.output.splitlines())


def edited(resource: Resource, **props: Any) -> dict[str, Any]:
    """A copy of a resource with other properties."""
    copied: dict[str, Any] = json.loads(json.dumps(resource))
    copied["props"] |= props
    return copied
