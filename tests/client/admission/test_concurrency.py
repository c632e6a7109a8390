"""The concurrency limit that follows latency, against a modelled upstream."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from ai_client.admission.concurrency import AdaptiveConcurrency


@dataclass
class ModelledUpstream:
    """Serves `capacity` at once at full speed; beyond it everything slows down in proportion."""

    capacity: int
    base_s: float = 0.2
    per_token_s: float = 0.02
    noise: float = 0.1
    dice: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311

    def latency_s(self, tokens: int, in_flight: int) -> float:
        load = max(1.0, in_flight / self.capacity)
        jitter = 1.0 + self.noise * (2 * self.dice.random() - 1)
        return (self.base_s + self.per_token_s * tokens) * load * jitter


def drive(
    adaptive: AdaptiveConcurrency, upstream: ModelledUpstream, *, rounds: int, lengths: tuple[int, ...]
) -> list[int]:
    """Keeps as many in flight as allowed; the limits seen."""
    limits = []
    for _ in range(rounds):
        in_flight = adaptive.limit
        tokens = upstream.dice.choice(lengths)
        adaptive.observe(upstream.latency_s(tokens, in_flight), tokens, in_flight=in_flight)
        limits.append(adaptive.limit)
    return limits


def learned(lengths: tuple[int, ...], *, max_limit: int = 100) -> AdaptiveConcurrency:
    """One that knows the upstream unloaded."""
    adaptive = AdaptiveConcurrency(max_limit=max_limit)
    idle = ModelledUpstream(capacity=10_000)
    for _ in range(5 * max_limit):
        tokens = idle.dice.choice(lengths)
        adaptive.observe(idle.latency_s(tokens, 1), tokens, in_flight=1)
    return adaptive


def test_it_starts_at_what_the_user_allows() -> None:
    """And stays there while the upstream keeps up."""
    adaptive = AdaptiveConcurrency(max_limit=50)
    limits = drive(adaptive, ModelledUpstream(capacity=1000), rounds=3000, lengths=(100,))
    assert set(limits) == {50}


def test_it_shrinks_when_latency_rises() -> None:
    """An upstream that serves 20 at once is not asked for 100."""
    adaptive = learned((100,))
    limits = drive(adaptive, ModelledUpstream(capacity=20), rounds=4000, lengths=(100,))
    assert max(limits[-500:]) < 60
    assert min(limits[-500:]) >= 10


def test_it_grows_back_when_the_upstream_recovers() -> None:
    """To where it was."""
    adaptive = learned((100,))
    drive(adaptive, ModelledUpstream(capacity=10), rounds=2000, lengths=(100,))
    assert adaptive.limit < 50
    drive(adaptive, ModelledUpstream(capacity=10_000), rounds=4000, lengths=(100,))
    assert adaptive.limit == 100


def test_answers_of_very_different_length_are_not_mistaken_for_trouble() -> None:
    """A hundredfold: 10 to 1,000 tokens, 0.4 to 20 seconds, one and the same upstream."""
    adaptive = AdaptiveConcurrency(max_limit=100)
    limits = drive(adaptive, ModelledUpstream(capacity=1000), rounds=5000, lengths=(10, 30, 100, 300, 1000))
    assert min(limits) == 100


def test_a_shift_from_short_to_long_answers_is_not_mistaken_for_trouble() -> None:
    """First only short ones, then only long ones, at a fixed rate a token."""
    adaptive = AdaptiveConcurrency(max_limit=100)
    upstream = ModelledUpstream(capacity=1000)
    drive(adaptive, upstream, rounds=2000, lengths=(10, 50))
    limits = drive(adaptive, upstream, rounds=3000, lengths=(500, 1000))
    assert min(limits) > 60


def test_a_model_that_has_become_slower_is_not_starved() -> None:
    """Three times slower whatever we do: the limit falls, sees that latency does not follow, and comes back."""
    adaptive = learned((100,))
    slower = ModelledUpstream(capacity=1000, base_s=0.6, per_token_s=0.06)
    drive(adaptive, slower, rounds=8000, lengths=(100,))
    assert adaptive.limit == 100


def test_a_long_overload_does_not_become_the_expectation() -> None:
    """Forty thousand answers at the edge: the limit stays where it was found."""
    adaptive = learned((100,))
    upstream = ModelledUpstream(capacity=20)
    drive(adaptive, upstream, rounds=4000, lengths=(100,))
    limits = drive(adaptive, upstream, rounds=36_000, lengths=(100,))
    assert 15 < min(limits[-1000:]) <= max(limits[-1000:]) < 60


def test_it_never_goes_below_one() -> None:
    """However bad it gets, somebody must try."""
    adaptive = AdaptiveConcurrency(max_limit=10)
    for second in range(100):
        adaptive.failed(float(second * 2))
    assert adaptive.limit == 1
    for _ in range(200):
        adaptive.observe(1000.0, 1, in_flight=1)
    assert adaptive.limit >= 1


def test_failures_cut_it_once_a_second() -> None:
    """A burst of errors is one event."""
    adaptive = AdaptiveConcurrency(max_limit=100)
    assert adaptive.failed(10.0)
    for _ in range(50):
        assert not adaptive.failed(10.5)
    assert adaptive.limit == 80


def test_an_idle_lane_does_not_grow() -> None:
    """With half of the limit unused, latency says nothing about it."""
    adaptive = AdaptiveConcurrency(max_limit=100)
    for second in range(10):
        adaptive.failed(float(second * 2))
    cut = adaptive.limit
    for _ in range(500):
        adaptive.observe(1.0, 100, in_flight=1)
    assert adaptive.limit == cut


def test_a_new_maximum_takes_an_unrestricted_limit_with_it() -> None:
    """Both ways; a limit that was cut stays cut."""
    adaptive = AdaptiveConcurrency(max_limit=50)
    adaptive.set_max(80)
    assert adaptive.limit == 80
    adaptive.failed(1.0)
    adaptive.set_max(200)
    assert adaptive.limit == 64
    adaptive.set_max(10)
    assert adaptive.limit == 10


def test_it_can_be_turned_off() -> None:
    """Then it is a constant."""
    adaptive = AdaptiveConcurrency(max_limit=50, enabled=False)
    adaptive.failed(1.0)
    drive(adaptive, ModelledUpstream(capacity=1), rounds=1000, lengths=(100,))
    assert adaptive.limit == 50
