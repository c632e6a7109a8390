"""The controller's half of the applier: from role variables to a request, and from a host's answer to a result."""
