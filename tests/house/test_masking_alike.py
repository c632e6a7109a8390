"""Three programs mask what people read, and none can import another: what one takes for a key, all do."""

from __future__ import annotations

import pytest
from applier.on_host import masking as on_host

from ai_client.errors import base as client
from infra import key_forms, masking

WORD = "0aB1cD2eF3gH4iJ5kL6mN7oP8qR9sT0uV1wX2yZ3"
# Put together here, so that no file holds what looks like a key.
KEYS = [
    prefix + WORD
    for prefix in (
        *(
            "hs_live_",
            "hs_test_",
            "sk-",
            "sk_",
            "pk_live_",
            "rk_test_",
            "gho_",
            "ghs_",
            "github_pat_",
            "glpat-",
        ),
        *("xoxb-", "npm_", "pypi-", "hf_", "dop_v1_", "AIza", "eyJ"),
    )
] + ["AKIA" + "ABCDEFGH01234567", "pul-" + "0123456789abcdef" * 3, "AGE-SECRET-KEY-" + WORD.upper()]
FRAMES = ["{}", "the key {} was refused", '"x": "{}",', "https://a.example/?q={}&b=1", "+value = {}\n"]


def test_the_forms_of_vendors_are_one_list() -> None:
    """A form is added in all three."""
    assert key_forms.VENDORS == on_host.VENDORS == client.VENDORS


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key[:6])
@pytest.mark.parametrize(
    "mask", [masking.mask, on_host.mask, client.redact], ids=["control", "host", "client"]
)
def test_a_key_is_masked_wherever_it_stands(mask: object, key: str) -> None:
    """By each of them; and a masked text stays as it is."""
    assert callable(mask)
    for frame in FRAMES:
        shown = mask(frame.format(key))
        assert key[-24:] not in shown, frame
        assert mask(shown) == shown
