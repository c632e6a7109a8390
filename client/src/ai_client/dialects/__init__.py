"""How providers speak: requests, streams, limit headers, errors, token estimates."""
