"""A call's way from request to answer: routing, attempts, retries, fallback."""
