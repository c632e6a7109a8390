"""A program of your own: its resources, and a fleet beside them."""

import pulumi

from infra.component import Fleet, FleetArgs

pulumi.export("region", pulumi.Config().require("region"))

fleet = Fleet("fleet", FleetArgs(folder="ai-client-fleet"))
pulumi.export("inventory", fleet.inventory)
pulumi.export("planDigest", fleet.plan_digest)
