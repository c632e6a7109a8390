"""The service as a process: start, reload, hand-over, end."""
