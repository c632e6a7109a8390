"""One comment for each stack, posted once and then updated, on a server that speaks as GitHub and GitLab do."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.forge import TOKEN, Forge, Handler, running
from tools.report import post_comment

MARKER = "<!-- fleet-plan: production -->"


@pytest.fixture
def forge() -> Iterator[Forge]:
    with running() as server:
        yield server


@pytest.fixture(params=["github", "gitlab"])
def environ(forge: Forge, request: pytest.FixtureRequest) -> dict[str, str]:
    return environment(forge, request.param)


def environment(forge: Forge, kind: str) -> dict[str, str]:
    if kind == "github":
        return {"GITHUB_API_URL": forge.url, "GITHUB_REPOSITORY": "us/fleet", "GITHUB_TOKEN": TOKEN}
    return {"CI_API_V4_URL": forge.url, "CI_PROJECT_ID": "12", "FLEET_COMMENT_TOKEN": TOKEN}


def posted(
    tmp_path: Path,
    environ: dict[str, str],
    text: str = "the plan",
    *,
    marker: str = MARKER,
    waits: list[float] | None = None,
) -> int:
    file = tmp_path / "comment.md"
    file.write_text(f"{marker}\n{text}\n")
    sleeps = [] if waits is None else waits
    return post_comment.main([str(file), "--number", "7"], environ, sleep=sleeps.append)


def test_a_comment_is_posted_once_and_then_updated(
    forge: Forge, environ: dict[str, str], tmp_path: Path
) -> None:
    """However often a branch is pushed to, its pull request has one comment a stack."""
    for text in ("first", "second", "third"):
        assert posted(tmp_path, environ, text) == 0
    assert posted(tmp_path, environ, "other", marker=MARKER.replace("production", "dev")) == 0
    bodies = [comment["body"] for comment in forge.comments]
    assert bodies == [f"{MARKER}\nthird\n", "<!-- fleet-plan: dev -->\nother\n"]


def test_the_comment_is_found_on_a_later_page(forge: Forge, environ: dict[str, str], tmp_path: Path) -> None:
    """A long discussion comes in pages."""
    for number in range(250):
        forge.add(f"talk {number}", writer="somebody")
    forge.add(f"{MARKER}\nold")
    assert posted(tmp_path, environ) == 0
    assert len(forge.comments) == 251
    assert forge.comments[-1]["body"] == f"{MARKER}\nthe plan\n"


def test_somebody_elses_comment_is_never_changed(
    forge: Forge, environ: dict[str, str], tmp_path: Path
) -> None:
    """Anyone can begin a comment with the marker."""
    forge.add(f"{MARKER}\nmine, says somebody", writer="somebody")
    assert posted(tmp_path, environ) == 0
    assert forge.comments[0]["body"] == f"{MARKER}\nmine, says somebody"
    assert len(forge.comments) == 2


@pytest.mark.parametrize(
    ("kind", "paths"),
    [
        ("github", ["GET /repos/us/fleet/issues/7/comments", "POST /repos/us/fleet/issues/7/comments",
                    "PATCH /repos/us/fleet/issues/comments/100"]),
        ("gitlab", ["GET /projects/12/merge_requests/7/notes", "POST /projects/12/merge_requests/7/notes",
                    "PUT /projects/12/merge_requests/7/notes/100"]),
    ],
)  # fmt: skip
def test_each_forge_is_asked_at_its_own_addresses(
    forge: Forge, kind: str, paths: list[str], tmp_path: Path
) -> None:
    """As their documentation names them."""
    assert posted(tmp_path, environment(forge, kind)) == 0
    assert posted(tmp_path, environment(forge, kind)) == 0
    assert {f"{method} {path}" for method, path in forge.seen} - {"GET /user"} == set(paths)


def test_a_server_that_fails_is_asked_again(forge: Forge, environ: dict[str, str], tmp_path: Path) -> None:
    """With longer and longer waits; in the end the job fails and says why."""
    waits: list[float] = []
    forge.failures = [502, 503]
    assert posted(tmp_path, environ, waits=waits) == 0
    assert waits == [1.0, 4.0]
    forge.failures = [500] * 9
    assert posted(tmp_path, environ, waits=waits) == 1
    assert len(forge.comments) == 1


def test_a_comment_is_not_posted_twice_for_an_answer_that_was_lost(
    forge: Forge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A POST that fails is not tried again: it may have been done."""
    environ = environment(forge, "github")
    real_list = Handler.do_GET
    forge.failures = []
    assert posted(tmp_path, environ) == 0
    forge.comments.clear()
    forge.seen.clear()

    def list_then_fail(handler: Handler) -> None:
        real_list(handler)
        handler.server.failures = [502]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Handler, "do_GET", list_then_fail)
        assert posted(tmp_path, environ) == 1
    assert [method for method, _ in forge.seen] == ["GET", "POST"]
    assert "502" in capsys.readouterr().err


@pytest.mark.parametrize("status", [401, 403, 404, 302])
def test_a_refusal_names_the_reason_and_not_the_token(
    forge: Forge, environ: dict[str, str], status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No second try, and no redirect is followed: it would take the token elsewhere."""
    waits: list[float] = []
    forge.failures = [status]
    assert posted(tmp_path, environ, waits=waits) == 1
    said = capsys.readouterr().err
    assert f": {status}: " in said
    assert "permissions of the job" in said
    assert TOKEN not in said
    assert waits == []


def test_a_server_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The network of the job may not reach it."""
    environ = {"GITHUB_API_URL": "http://127.0.0.1:9", "GITHUB_REPOSITORY": "us/fleet", "GITHUB_TOKEN": TOKEN}
    assert posted(tmp_path, environ) == 1
    assert "the network of the job" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["GITHUB_API_URL", "GITHUB_REPOSITORY", "GITHUB_TOKEN"])
def test_a_variable_that_is_not_set_is_named(
    forge: Forge, missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is sent."""
    environ = environment(forge, "github")
    del environ[missing]
    assert posted(tmp_path, environ) == 1
    assert f"{missing} is not set" in capsys.readouterr().err
    assert forge.seen == []


@pytest.mark.parametrize(
    ("body", "said"),
    [("# Plan\n", "marker"), (f"{MARKER} x\n", "marker"), (f"{MARKER}\n{'x' * 70_000}", "65536 are allowed")],
    ids=["no marker", "no marker alone", "too long"],
)
def test_what_is_no_plan_or_too_long_is_not_posted(
    forge: Forge, tmp_path: Path, body: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file comes from a job that ran the pull request's code."""
    marker, text = body.split("\n", 1)
    assert posted(tmp_path, environment(forge, "github"), text, marker=marker) == 1
    assert said in capsys.readouterr().err
    assert forge.seen == []
