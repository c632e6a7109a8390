"""What becomes of a wave of which a host failed."""

import pytest

from infra.run import failures, to_put_back

FINE = {"changed": True, "failed": False}
UNCHANGED = {"changed": False, "failed": False}
BACK = {"changed": True, "failed": True, "rolled_back": True, "message": "answers with errors of its own"}
REFUSED = {"changed": False, "failed": True, "rolled_back": False, "message": "the provider refuses the key"}
GONE = {"changed": False, "failed": False, "unreachable": True, "message": "no route"}


@pytest.mark.parametrize(
    ("results", "back"),
    [
        ({"a": FINE, "b": UNCHANGED}, []),
        ({"a": FINE, "b": BACK, "c": UNCHANGED, "d": FINE}, ["a", "d"]),
        ({"a": BACK, "b": BACK}, []),
        # Neither is a verdict on what was rolled out; a key never goes back.
        ({"a": FINE, "b": GONE}, []),
        ({"a": FINE, "b": REFUSED}, []),
    ],
)
def test_a_wave_goes_back_together_where_one_host_went_back(
    results: dict[str, dict[str, object]], back: list[str]
) -> None:
    """Those that had changed and are well; one that was not touched has nothing to go back to."""
    assert to_put_back(results) == back


def test_each_host_that_failed_has_a_line_with_its_reason() -> None:
    """A host that is well has none."""
    assert failures({"a": FINE, "b": BACK, "c": GONE}) == [
        "b: failed: answers with errors of its own",
        "c: unreachable: no route",
    ]
