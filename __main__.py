"""Wiring of the stack: configuration in, outputs out. `infra.program` has the steps between."""

import sys

import pulumi

from infra import interrupt, program
from infra.config import pulumi_config
from infra.errors import FleetError


def main() -> None:
    for name, value in program.declare(pulumi_config.read_settings()).items():
        pulumi.export(name, value)


# As Pulumi's own runner ends a program that has told what is wrong: the engine adds no second error then, and fails.
TOLD = 32

interrupt.end_quietly_on_interrupt()
try:
    main()
except FleetError as error:
    pulumi.log.error(str(error))
    sys.exit(TOLD)
