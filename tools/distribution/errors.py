"""What keeps a release from being built."""


class ReleaseError(Exception):
    """The text names what is wrong and what to do, a line each."""
