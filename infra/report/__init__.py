"""What a preview says, for people: one comment for a pull request, and a page. The engine's events in, text out."""
