"""The applier: what a controller sends to a host, and what runs there."""
