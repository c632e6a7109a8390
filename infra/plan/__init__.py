"""What `up` would change on each host, and what stands in its way."""
