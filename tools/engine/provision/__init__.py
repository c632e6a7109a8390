"""Settles which Pulumi engine and which `command` plugin run on this machine (standard library only)."""
