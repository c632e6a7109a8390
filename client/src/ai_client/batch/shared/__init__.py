"""One batch, worked through by all batch hosts of an account by way of the coordination engine (docs/adr/0034)."""
