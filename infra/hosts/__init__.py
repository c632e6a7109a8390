"""Hosts and groups as data, and where they come from."""
