"""What `ai-client simulate --like NAME` plays on demand, from the answers that it ships with."""

from __future__ import annotations

from ai_client.testing.likeness import LIKENESSES
from ai_client.testing.played import Answer, plays_of
from tools.pages import markdown

_INTRO = """\
`ai-client simulate --like NAME` answers as a provider does; [Providers](../how-to/providers.md) says how each of them
counts, and what is always so. Below are answers that it gives on demand, in place of its own: those that the provider
gave by public reports and its own reference. To get one, send the header `x-simulator-fault: play; name=NAME` with a
request, or `POST` a JSON object with `{"fault": "play; name=NAME", "count": 1}` to `/control/faults` of the simulator
before it.

Each is a case of `tests/client/corpus`, which names the report and says what comes of it;
`tests/client/test_corpus.py` runs it against a server of its own and against the simulator."""


def text() -> str:
    """The page."""
    parts = [_INTRO]
    for provider in LIKENESSES:
        plays = plays_of(provider)
        if plays:
            rows = [(markdown.code(name), _kind(answer)) for name, answer in sorted(plays.items())]
            parts += [f"## {provider}", markdown.table(("name", "answer"), rows)]
    return markdown.page("Simulated providers", *parts)


def _kind(answer: Answer) -> str:
    """In few words."""
    if "events" not in answer:
        return str(answer.get("status", 200))
    return "a stream that breaks off" if answer.get("ends") == "cut" else "a stream"
