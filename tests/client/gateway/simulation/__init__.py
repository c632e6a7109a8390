"""The whole gateway on one clock that nobody but the seed drives: see `world`."""
