"""What the stack's state says of the last run, and what follows from it."""
