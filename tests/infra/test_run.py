"""What becomes of a wave of which a host failed."""

from dataclasses import replace
from typing import Any

import pytest

from infra.errors import PlaybookError
from infra.playbook.request import RunRequest
from infra.run import failures, roll_out, to_put_back, with_consent

FINE = {"changed": True, "failed": False}
UNCHANGED = {"changed": False, "failed": False}
BACK = {"changed": True, "failed": True, "rolled_back": True, "message": "answers with errors of its own"}
STUCK = {"changed": True, "failed": True, "rolled_back": False, "message": "unhealthy; going back failed too"}
REFUSED = {"changed": False, "failed": True, "rolled_back": False, "message": "the provider refuses the key"}
OWN_TASK = {
    "changed": True,
    "failed": True,
    "own_task": True,
    "message": "the task 'fill' failed: no such pool",
}
GONE = {"changed": False, "failed": False, "unreachable": True, "message": "no route"}


@pytest.mark.parametrize(
    ("results", "back"),
    [
        ({"a": FINE, "b": UNCHANGED}, []),
        ({"a": FINE, "b": BACK, "c": UNCHANGED, "d": FINE}, ["a", "d"]),
        ({"a": BACK, "b": BACK}, []),
        ({"a": FINE, "b": STUCK, "c": UNCHANGED}, ["a"]),
        # Neither is a verdict on what was rolled out; a key never goes back.
        ({"a": FINE, "b": GONE}, []),
        ({"a": FINE, "b": REFUSED}, []),
        # A task of the group's own failed after the deploy: the host keeps its release, with the others.
        ({"a": FINE, "b": OWN_TASK}, []),
        ({"a": BACK, "b": OWN_TASK}, ["b"]),
    ],
)
def test_a_wave_goes_back_together_where_one_host_went_back(
    results: dict[str, dict[str, object]], back: list[str]
) -> None:
    """Those that had changed and are well; one that was not touched has nothing to go back to."""
    assert to_put_back(results) == back


def test_each_host_that_failed_has_a_line_with_its_reason() -> None:
    """A host that is well has none; hosts with one cause share it."""
    assert failures({"a": FINE, "c": GONE, "b": BACK, "d": GONE}) == [
        "c, d: unreachable: no route",
        "b: failed: answers with errors of its own",
    ]


def run_of(
    *answers: dict[str, dict[str, object]] | PlaybookError, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Plays a roll-out whose Ansible runs give these answers; each host's line."""
    left = list(answers)

    def execute(request: RunRequest, *, run: str = "", limit: object = ()) -> tuple[Any, str]:
        answer = left.pop(0)
        if isinstance(answer, PlaybookError):
            raise answer
        return answer, ""

    monkeypatch.setattr("infra.run.execute", execute)
    results, _ = roll_out(RunRequest(playbook="p", inventory={}, ssh_config="", known_hosts=""))
    return failures(results)


def test_the_others_go_back_though_the_failing_host_could_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the wave must not keep a bad release because one host is stuck on it."""
    lines = run_of({"a": FINE, "b": STUCK}, {"a": {"changed": True}}, monkeypatch=monkeypatch)
    assert lines == [
        "a: failed: put back: another host of its wave failed",
        "b: failed: unhealthy; going back failed too",
    ]


def test_a_rollback_that_fails_does_not_hide_who_failed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both errors are told."""
    error = PlaybookError("ansible/ai-client-rollback.yml", "ended with status 4", "see above")
    first, second = run_of({"a": FINE, "b": BACK}, error, monkeypatch=monkeypatch)
    assert "could not be put back: ansible/ai-client-rollback.yml: ended with status 4" in first
    assert second == "b: failed: answers with errors of its own"


def test_a_host_that_asks_for_consent_gets_it_from_the_run_that_takes_it_down() -> None:
    """`ai_needs_consent` stands in the way of hand-run playbooks, never of a stack that says that the host leaves."""
    host = {"web": {"ai_claim": "fleet/production@0123/web", "ansible_host": "10.0.0.1"}}
    request = RunRequest(
        playbook="ansible/ai-client-decommission.yml",
        inventory={"all": {"hosts": host}},
        ssh_config="",
        known_hosts="",
    )
    given = with_consent(request).inventory["all"]["hosts"]["web"]
    assert given == {**host["web"], "ai_consent": "fleet/production@0123/web"}
    deploy = replace(request, playbook="ansible/ai-client-deploy.yml")
    assert with_consent(deploy) is deploy
