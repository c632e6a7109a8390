"""The model of the engine's side, called as the engine is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ai_client.coordination.batch_books import BatchBooks


class ModelEngine:
    """Answers at once."""

    def __init__(self, books: BatchBooks | None = None) -> None:
        self.books = BatchBooks() if books is None else books

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(*given: Any, **named: Any) -> Any:
            return getattr(self.books, "close" if name == "close_batch" else name)(*given, **named)

        return call
