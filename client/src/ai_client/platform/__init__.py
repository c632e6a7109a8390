"""What every layer stands on: clocks, JSON, the event loop, SQLite, systemd, log files."""
