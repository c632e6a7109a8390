"""Where upstream keys are kept outside of the stack: one way to ask them all, `read.with_keys`."""
