"""Declares one local.Command named `c` as case.json says, or none where that holds null."""

import json
from pathlib import Path

import pulumi
from pulumi_command import local

SECRET_MARK = "secret:"


def reveal(value: object) -> object:
    """Makes Pulumi secrets of the strings that are marked so."""
    if isinstance(value, str) and value.startswith(SECRET_MARK):
        return pulumi.Output.secret(value.removeprefix(SECRET_MARK))
    if isinstance(value, dict):
        return {key: reveal(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [reveal(inner) for inner in value]
    return value


arguments = json.loads(Path("case.json").read_text())
if arguments is not None:
    create_timeout = arguments.pop("create_timeout", None)
    options = pulumi.ResourceOptions(
        additional_secret_outputs=arguments.pop("additional_secret_outputs", None),
        delete_before_replace=arguments.pop("delete_before_replace", None),
        ignore_changes=arguments.pop("ignore_changes", None),
        custom_timeouts=pulumi.CustomTimeouts(create=create_timeout) if create_timeout else None,
    )
    local.Command("c", opts=options, **reveal(arguments))
