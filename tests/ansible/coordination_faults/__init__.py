"""Faults of a shared quota on real hosts: `python -m tests.ansible.coordination_faults`."""
