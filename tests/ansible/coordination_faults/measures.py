"""What is counted: arrivals in the fullest minute, and what became of those who asked."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WINDOW_S = 60.0
# The window allows for this much between the write on a host and the note of its arrival: ai_client.admission.window.
DELAY_S = 0.1


@dataclass(frozen=True)
class Arrivals:
    """What the upstream has noted: times in order, and when it noted too late, and by how much."""

    at_s: Sequence[float]
    late: Sequence[tuple[float, float]]

    @classmethod
    def read(cls, path: Path) -> Arrivals:
        """All so far; a line that is being written is left for the next time."""
        text = path.read_text() if path.exists() else ""
        lines = [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]
        at_s = sorted(float(words[0]) for words in lines if words[0] != "late")
        return cls(at_s, [(float(words[1]), float(words[2])) for words in lines if words[0] == "late"])

    def fullest(self, *, from_s: float, to_s: float, window_s: float = WINDOW_S) -> int:
        """The most arrivals in any minute that ends in that time."""
        at_s, first, last = self.at_s, bisect_left(self.at_s, from_s), bisect_right(self.at_s, to_s)
        return max((at + 1 - bisect_right(at_s, at_s[at] - window_s) for at in range(first, last)), default=0)

    def late_s(self, *, from_s: float, to_s: float) -> float:
        """By how much one was noted too late at most, in those minutes."""
        return max((late for at, late in self.late if from_s - WINDOW_S <= at <= to_s), default=0.0)

    def surely_fullest(self, *, from_s: float, to_s: float) -> int:
        """The same, of windows that are shorter by what was noted too late beyond the allowed delay: what is in one
        of these has arrived within a minute."""
        beyond_s = max(0.0, self.late_s(from_s=from_s, to_s=to_s) - DELAY_S)
        return self.fullest(from_s=from_s, to_s=to_s, window_s=max(0.0, WINDOW_S - beyond_s))


@dataclass(frozen=True)
class Answer:
    """What one caller got: `outcome` is 200, another status and its code, or why there was no answer; for `starved_s`
    of its time somebody on this machine waited for a processor."""

    began_s: float
    ended_s: float
    outcome: str
    starved_s: float

    @property
    def took_s(self) -> float:
        return self.ended_s - self.began_s

    @property
    def late_s(self) -> float:
        """How long it took, beyond what the machine itself was late."""
        return self.took_s - self.starved_s


def answers(path: Path, *, from_s: float, to_s: float) -> list[Answer]:
    """Of the requests that began in that time."""
    found = [Answer(*json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []
    return [each for each in found if from_s <= each.began_s <= to_s]


def outcomes(found: Sequence[Answer]) -> dict[str, int]:
    """How many of each, the most first."""
    return dict(Counter(each.outcome for each in found).most_common())
