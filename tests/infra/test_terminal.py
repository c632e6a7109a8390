"""Colour in diffs, and what others write into them."""

import pytest

from infra.plan.finding import Finding, HostState, difference
from infra.plan.messages import show
from infra.playbook.runner import _masked
from infra.terminal import coloured, inert


def test_a_diff_is_coloured_line_by_line() -> None:
    """Each line ends its own colour; lines that stay have none."""
    assert coloured("--- a\n+++ b\n@@ -1 +1 @@\n same\n-old\n+new").split("\n") == [
        "<{%bold%}>--- a<{%reset%}>",
        "<{%bold%}>+++ b<{%reset%}>",
        "<{%fg 6%}>@@ -1 +1 @@<{%reset%}>",
        " same",
        "<{%fg 1%}>-old<{%reset%}>",
        "<{%fg 2%}>+new<{%reset%}>",
    ]


@pytest.mark.parametrize("text", ["<{%no such%}>", "<{%<{%fg 1%}>", "a<{%"])
def test_what_a_host_says_holds_no_directive(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the engine does not know would end it, so that one host could stop every preview."""
    said: list[str] = []
    for level in ("warn", "info"):
        monkeypatch.setattr(f"pulumi.log.{level}", said.append)
    monkeypatch.setattr("pulumi.runtime.is_dry_run", lambda: True)
    changed = (difference("/etc/x", f"{text}\n", "new\n", side="on the host"),)
    show(
        {"a": Finding(HostState.DIFFERS, differences=changed), "b": Finding(HostState.FAILED, f"says {text}")}
    )
    own = ("<{%bold%}>", "<{%fg 1%}>", "<{%fg 2%}>", "<{%fg 6%}>", "<{%reset%}>")
    left = "\n".join(said).replace("<{ %fg 1%}>", "")
    for directive in own:
        left = left.replace(directive, "")
    assert "<{%" not in left
    assert "<{%" not in str(_masked({"message": [text], "diffs": [{"before": text}]}, ()))
    assert inert("100 <{ }> %") == "100 <{ }> %"
