"""Where nodes come from: declared addresses, hosts made on this machine, existing cloud instances."""
