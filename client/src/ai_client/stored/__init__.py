"""Where what upstreams keep was made."""
