"""From settings to a client: assembly, key and file sources, health checks."""
