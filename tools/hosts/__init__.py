"""Real systemd hosts on this machine, for the `dev` stack and the fleet tests (docs/adr/0003)."""
