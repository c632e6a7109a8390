"""The controller's half: from role variables to a request, and from a host's answer to a result."""
