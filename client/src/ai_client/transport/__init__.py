"""The boundary to HTTP stacks: `base` says what one must do, `aiohttp` and `httpx` do it."""
