"""What stays of a text that is too long."""

from hypothesis import given, settings
from hypothesis import strategies as st

from infra.report.fit import Piece, fit, leading, size

FORMS = st.lists(st.integers(0, 50).map("x".__mul__), min_size=1, max_size=4)
PIECES = st.lists(
    st.builds(Piece, FORMS.map(lambda forms: tuple(sorted(forms, reverse=True))), st.integers(0, 2)),
    max_size=12,
)


def total(pieces: list[Piece], levels: list[int]) -> int:
    return sum(size(piece.forms[level]) for piece, level in zip(pieces, levels, strict=True))


@settings(deadline=None)
@given(pieces=PIECES, limit=st.integers(0, 400))
def test_pieces_are_within_the_limit_if_that_is_possible(pieces: list[Piece], limit: int) -> None:
    """Else each is in its shortest form; and nothing is shortened that need not be."""
    levels = fit(pieces, limit_bytes=limit)
    shortest = [len(piece.forms) - 1 for piece in pieces]
    assert total(pieces, levels) <= limit or levels == shortest
    if total(pieces, [0] * len(pieces)) <= limit:
        assert levels == [0] * len(pieces)


@settings(deadline=None)
@given(count=st.integers(1, 20), limit=st.integers(0, 200))
def test_the_least_important_piece_is_shortened_first(count: int, limit: int) -> None:
    """Of equal pieces the last ones, and none twice before all once."""
    levels = fit([Piece(("x" * 10, "x" * 5, ""))] * count, limit_bytes=limit)
    assert levels == sorted(levels)
    assert max(levels) - min(levels) <= 1


@settings(deadline=None)
@given(pieces=PIECES, limit=st.integers(0, 400))
def test_what_matters_more_is_whole_while_less_is_there(pieces: list[Piece], limit: int) -> None:
    """A piece is shortened only where all of a higher rank number are in their shortest form."""
    levels = fit(pieces, limit_bytes=limit)
    for piece, level in zip(pieces, levels, strict=True):
        if level:
            less = [(p, at) for p, at in zip(pieces, levels, strict=True) if p.rank > piece.rank]
            assert all(at == len(p.forms) - 1 for p, at in less)


@settings(deadline=None)
@given(items=st.lists(st.text(max_size=9)), limit=st.integers(0, 60))
def test_leading_items_are_the_first_that_fit(items: list[str], limit: int) -> None:
    """In bytes, and no later one slips in for one that was too long."""
    kept = leading(items, limit_bytes=limit)
    assert kept == items[: len(kept)]
    assert size("".join(kept)) <= limit
    assert kept == items or size("".join(items[: len(kept) + 1])) > limit
