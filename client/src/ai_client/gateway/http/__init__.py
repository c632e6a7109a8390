"""HTTP under the gateway: sockets, server, ASGI."""
