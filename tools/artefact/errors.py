"""What can go wrong while the artefact is made or examined."""


class ArtefactError(Exception):
    """Names the culprit, the reason and the remedy."""
