"""Stacks: their files made and moved in, and the dev stack on this machine."""
