"""A playbook run: what it is told, and the process that carries it out."""
