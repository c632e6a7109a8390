"""The stack's resources."""
