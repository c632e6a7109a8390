"""The boundary to HTTP stacks: `base` says what one must do; `direct` is the default, `aiohttp` serves proxies."""
