"""Anchors go to the journal, and to nobody's terminal."""

import json

import pytest

from ai_client.audit.chain import Anchor, parse_anchor
from ai_client.audit.journal import tell_journal

ANCHOR = Anchor(7, "0123456789abcdef0123456789abcdef")


def test_the_journal_gets_a_line_that_verify_reads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "9:1234")
    tell_journal(ANCHOR)
    line = capsys.readouterr().err
    assert json.loads(line)["event"] == "audit_anchor"
    assert parse_anchor(line) == ANCHOR


def test_a_terminal_gets_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    tell_journal(ANCHOR)
    assert capsys.readouterr().err == ""
