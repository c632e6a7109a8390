"""What a run of the engine is told as: progress on a terminal, a preview as a comment and a page."""
