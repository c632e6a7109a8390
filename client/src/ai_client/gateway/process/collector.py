"""How the garbage collector is told what a service leaves behind."""

from __future__ import annotations

import gc


def spare_the_collector() -> None:
    """What is there from the start stays, and what requests leave is freed by its count: looking for cycles at every
    700th object took a tenth of the processor's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
