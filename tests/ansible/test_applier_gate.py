"""A changed service is watched: when that puts it back, and when it does not."""

from __future__ import annotations

import json
import math

import pytest
from applier.on_host.gate import fault_of
from applier.on_host.request import Gate
from applier.on_host.watch import OWN_ERRORS, Sample, read_metrics, surely_above, worse
from hypothesis import given
from hypothesis import strategies as st

from ai_client import errors
from tests.ansible.folder_host import KEY_2, Rig, Wanted, artefact, varied

GOOD = Wanted()
BOUNDS = Gate(seconds=10, error_share=0.02, throttled_share=0.1, overhead_s=0.5, metrics="127.0.0.1:9090")
METRICS = """\
# HELP ai_client_requests_total Requests that ended, by outcome.
ai_client_requests_total{code="200",model="gpt \\"4\\"",tenant="a"} 90.0
ai_client_requests_total{code="max_retries_exceeded",model="m",tenant="a"} 4.0
ai_client_requests_total{code="internal_error",model="m",tenant="a"} 1.0
ai_client_requests_total{code="rate_limit_exceeded",model="m",tenant="a"} 2.0
ai_client_requests_total{code="not_cached",model="m",tenant="a"} 50.0
ai_client_requests_total{code="cancelled",model="m",tenant="a"} 50.0
ai_client_retries_total{error="RateLimitError"} 3.0
ai_client_retries_total{error="ServerError"} 8.0
ai_client_gateway_faults_total 5.0
ai_client_overhead_seconds_bucket{le="0.1"} 80.0
ai_client_overhead_seconds_bucket{le="0.5"} 89.0
ai_client_overhead_seconds_bucket{le="+Inf"} 90.0
"""


def release(**counts: float) -> Wanted:
    """A release that is healthy, and has counted this a while after its start."""
    return Wanted(packed=artefact(**{"counts.json": json.dumps(counts)}), run="run-2")


def test_the_counters_are_read_as_the_service_shows_them() -> None:
    """Own errors apart from the upstream's; questions of the gate's own and callers that left are no outcome."""
    sample = read_metrics(METRICS, process=7)
    assert (sample.process, sample.requests, sample.own_errors) == (7, 97, 6)
    assert (sample.attempts, sample.throttled) == (108, 5)
    assert sample.overhead_p95_s == 0.5


def test_a_new_process_counts_from_zero_and_the_same_one_goes_on() -> None:
    """A restart resets the counters: what the process before had counted is not taken off."""
    before = Sample(1, requests=100, own_errors=2, attempts=100)
    assert Sample(2, requests=7, own_errors=1, attempts=7).since(before).own_errors == 1
    assert Sample(1, requests=107, own_errors=3, attempts=107).since(before).requests == 7
    # The number may be taken again.
    assert Sample(1, requests=7).since(before).requests == 7


@given(
    before=st.integers(0, 5000),
    requests=st.integers(1, 5000),
    share=st.floats(0, 1),
    sent_rpm=st.tuples(st.integers(0, 6000), st.floats(0, 1)),
)
def test_what_the_upstream_answers_never_puts_a_release_back(
    before: int, requests: int, share: float, sent_rpm: tuple[int, float]
) -> None:
    """Whatever the mix of its errors: with none of the service's own, and no more sent than before, no verdict."""
    refused = int(requests * 4 * share)
    after = Sample(2, requests, 0, requests * 4, refused)
    sent = (sent_rpm[0], int(sent_rpm[0] * sent_rpm[1]))
    assert worse(Sample(1, before, 0, before), after, bounds=BOUNDS, sent_rpm=sent) == ""


@given(requests=st.integers(10, 5000), share=st.floats(0.5, 1))
def test_errors_of_its_own_put_a_release_back(requests: int, share: float) -> None:
    """Every second request or more, at any amount of traffic from ten requests on."""
    after = Sample(2, requests, math.ceil(requests * share), requests)
    found = worse(Sample(1, 1000, 3, 1000), after, bounds=BOUNDS, sent_rpm=None)
    assert "errors of its own" in found
    assert "before the change 3 of 1000 (0%)" in found


@pytest.mark.parametrize(("errors", "requests"), [(1, 1), (2, 2), (2, 40), (3, 60), (3, 1000)])
def test_few_errors_are_no_verdict(errors: int, requests: int) -> None:
    """Chance explains them."""
    assert worse(Sample(1, 500), Sample(2, requests, errors, requests), bounds=BOUNDS, sent_rpm=None) == ""


def test_a_service_that_failed_before_as_often_is_not_put_back() -> None:
    """The change did not make it worse."""
    before, after = Sample(1, 1000, 300, 1000), Sample(2, 100, 32, 100)
    assert worse(before, after, bounds=BOUNDS, sent_rpm=None) == ""


def test_429_counts_only_where_more_is_sent_than_before() -> None:
    """A provider that grants less throttles the release before just so."""
    before, after = Sample(1, 1000, 0, 1000, 5), Sample(2, 300, 0, 400, 200)
    assert worse(before, after, bounds=BOUNDS, sent_rpm=(600, 640)) == ""
    assert worse(before, after, bounds=BOUNDS, sent_rpm=None) == ""
    assert "refused with 429: 200 of 400" in worse(before, after, bounds=BOUNDS, sent_rpm=(600, 1200))


def test_time_that_the_service_adds_itself_puts_it_back() -> None:
    """Not what the upstream takes, and not from a handful of requests."""
    fast, slow = ((0.1, 100), (1.0, 100)), ((0.1, 10), (1.0, 100))
    before = Sample(1, 100, overhead=fast)
    found = worse(before, Sample(2, 100, overhead=slow), bounds=BOUNDS, sent_rpm=None)
    assert "adds up to 1000 ms" in found
    few = Sample(2, 10, overhead=((0.1, 1), (1.0, 10)))
    assert worse(before, few, bounds=BOUNDS, sent_rpm=None) == ""
    assert (
        worse(Sample(1, 100, overhead=slow), Sample(2, 100, overhead=slow), bounds=BOUNDS, sent_rpm=None)
        == ""
    )


@pytest.mark.parametrize("whole", [3, 10, 100, 10_000])
def test_a_share_is_never_above_itself(whole: int) -> None:
    """The bound is on the safe side."""
    assert all(
        not surely_above(part, whole, part / whole) for part in range(0, whole + 1, max(1, whole // 50))
    )


@pytest.mark.parametrize(
    ("status", "body", "is_fault"),
    [
        (504, b'{"error": {"code": "not_cached"}}', False),
        (429, b'{"error": {"code": "budget_exceeded"}}', False),
        (503, b'{"error": {"code": "draining"}}', False),
        (502, b"", False),
        (500, b"", True),
        (404, b'{"error": {"code": "unknown_url"}}', True),
        (503, b'{"error": {"code": "client_closed"}}', True),
        (0, b"the service does not answer", True),
    ],
)
def test_the_gates_question_finds_what_the_service_itself_can_not_answer(
    status: int, body: bytes, is_fault: bool
) -> None:
    """Any other answer is the upstream's, a limit's or a budget's."""
    assert bool(fault_of(status, body)) is is_fault


def test_every_code_of_the_clients_errors_is_known_as_own_or_not() -> None:
    """A renamed code must not leave the gate blind."""
    codes = {getattr(errors, name).code for name in errors.__all__ if name.endswith(("Error", "Exceeded"))}
    assert codes >= OWN_ERRORS | {"not_cached", "rate_limit_exceeded"}


def test_a_healthy_release_that_answers_with_errors_of_its_own_is_put_back(rig: Rig) -> None:
    """As soon as it shows, not at the end of the time; the answer has the shares before and after."""
    rig.ask(GOOD)
    rig.host.serve(requests=1000)
    host = rig.host
    answer = rig.ask(release(requests=40, faults=38), host)
    assert (answer.failed, answer.rolled_back) == (True, True)
    assert "38 of 40 (95%) requests, before the change 0 of 1000 (0%)" in answer.message
    assert f"went back to release {GOOD.digest[:12]}" in answer.message
    assert host.time_s < GOOD.gate_s
    assert answer.watched is not None
    assert answer.watched["own_errors"] == 38
    assert rig.host.state["running"]["ai-client.service"]["release"] == f"releases/{GOOD.digest}"
    assert len(rig.host.state["ended"]) == 1


def test_a_release_without_traffic_is_found_by_the_gates_question(rig: Rig) -> None:
    """It answers no request, and nobody has asked it yet."""
    rig.ask(GOOD)
    answer = rig.ask(Wanted(packed=artefact(breaks="all"), run="run-2"))
    assert (answer.failed, answer.rolled_back) == (True, True)
    assert "answers 500 to a request that needs no upstream" in answer.message


def test_a_failed_release_that_hands_nothing_over_is_restarted_away(rig: Rig) -> None:
    """It answers no control request either: the way back does not go through what failed."""
    rig.ask(GOOD)
    answer = rig.ask(Wanted(packed=artefact(breaks="all", deaf="yes"), run="run-2"))
    assert (answer.failed, answer.rolled_back) == (True, True)
    assert rig.host.state["commands"][-1] == "restart ai-client.service"
    assert rig.host.state["running"]["ai-client.service"]["release"] == f"releases/{GOOD.digest}"


def test_a_first_release_that_answers_nothing_is_stopped(rig: Rig) -> None:
    """It has nothing to go back to, and is not watched for longer than one question."""
    host = rig.host
    answer = rig.ask(Wanted(packed=artefact(breaks="all")), host)
    assert (answer.failed, answer.rolled_back, host.time_s) == (True, False, 0.0)
    assert rig.host.state["running"] == {}


def test_a_good_release_is_watched_for_the_time_set_and_stays(rig: Rig) -> None:
    """Throttled by a provider in trouble, with callers that get errors of it: that is no fault of the release."""
    rig.ask(GOOD)
    rig.host.serve(requests=1000, sent_rpm=600)
    newer, host = release(requests=500, throttled=400, sent_rpm=300), rig.host
    answer = rig.ask(newer, host)
    assert (answer.failed, answer.rolled_back) == (False, False)
    assert host.time_s == GOOD.gate_s
    assert answer.watched is not None
    assert (answer.watched["seconds"], answer.watched["throttled"]) == (10.0, 400)


@pytest.mark.parametrize("wanted", [GOOD, varied(GOOD, key=KEY_2)])
def test_where_nothing_but_the_key_changes_nothing_is_watched(rig: Rig, wanted: Wanted) -> None:
    """An unchanged host costs no second, and a rotation has been tried before."""
    rig.ask(GOOD)
    host = rig.host
    answer = rig.ask(wanted, host)
    assert (answer.failed, answer.watched, host.time_s) == (False, None, 0.0)


def test_a_changed_configuration_is_watched_too(rig: Rig) -> None:
    """The same process goes on with it: what it counted before the change is taken off."""
    rig.ask(GOOD)
    rig.host.serve(requests=1000, faults=3)
    host = rig.host
    answer = rig.ask(Wanted(config="[api]\ntimeout = 5\n", run="run-2"), host)
    assert (answer.failed, host.time_s) == (False, GOOD.gate_s)
    assert answer.watched is not None
    assert (answer.watched["requests"], answer.watched["before"]["own_errors"]) == (0, 3)


def test_a_run_killed_while_it_watched_is_watched_again(rig: Rig) -> None:
    """What it left is no baseline: a release that fails since then does not become the measure."""
    rig.ask(GOOD)
    rig.host.serve(requests=1000)
    bad = release(requests=80, faults=76)
    assert rig.ask_killed_at(bad, "watch the service")
    rig.host.serve(requests=40, faults=38)
    answer = rig.ask(varied(bad, run="run-3"))
    assert (answer.failed, answer.rolled_back) == (True, True)
    assert "38 of 40" in answer.message


def test_an_outage_that_begins_during_the_change_puts_nothing_back(rig: Rig) -> None:
    """The release and configuration before would not reach the upstream now either."""
    rig.ask(GOOD)
    rig.host.answer_keys(**{"": "no route"})
    answer = rig.ask(Wanted(packed=artefact(unreachable="yes"), run="run-2"))
    assert (answer.failed, answer.rolled_back) == (False, False)
    assert "no route" in answer.message
    assert rig.host.state["tried"] == [[GOOD.digest, GOOD.config, ""]]
    assert rig.partial_files() == []


def test_a_release_that_alone_can_not_reach_the_upstream_is_put_back(rig: Rig) -> None:
    """The one before it can."""
    rig.ask(GOOD)
    answer = rig.ask(Wanted(packed=artefact(unreachable="yes"), run="run-2"))
    assert (answer.failed, answer.rolled_back) == (True, True)
