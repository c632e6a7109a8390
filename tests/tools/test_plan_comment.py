"""The command that renders a preview: files, outputs for later steps, exit status."""

import subprocess
from pathlib import Path

import pytest

from tests.infra.report.samples import command, document, stream

PROJECT = Path(__file__).resolve().parents[2]
PROGRAM = PROJECT / "tools" / "plan-comment"
SAME = stream(outputs={"plan": {"api-1": {"state": "same"}}, "planDigest": "0123456789abcdef"})
CHANGES = stream(outputs={"plan": {"api-1": {"state": "differs"}}})


def run(folder: Path, *words: str, preview: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the program from another folder, as a job does that has its files elsewhere."""
    return subprocess.run(
        [PROGRAM, *words],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin"},
        input=preview,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("preview", [SAME, document(command("a", "create", new={"HOSTS": "api-1"}))])
def test_both_forms_of_previews_are_rendered_to_files(tmp_path: Path, preview: str) -> None:
    """From a file; nothing but the files is written."""
    (tmp_path / "preview.json").write_text(preview)
    done = run(tmp_path, "preview.json", "--comment", "comment.md", "--html", "plan.html")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "comment.md").read_text().startswith("<!-- fleet-plan: production -->\n")
    assert (tmp_path / "plan.html").read_text().startswith("<!doctype html>")


def test_without_files_the_comment_goes_to_the_console(tmp_path: Path) -> None:
    """`pulumi preview --json | tools/plan-comment`."""
    done = run(tmp_path, preview=SAME)
    assert done.returncode == 0
    assert "**Nothing to change: 1 host as declared.**" in done.stdout


@pytest.mark.parametrize(("preview", "status"), [(SAME, 0), (CHANGES, 1)])
def test_the_exit_code_says_whether_something_would_change(tmp_path: Path, preview: str, status: int) -> None:
    """As `git diff --exit-code` does; a scheduled look at drift fails by it."""
    assert run(tmp_path, "--exit-code", preview=preview).returncode == status
    assert run(tmp_path, preview=preview).returncode == 0


@pytest.mark.parametrize(
    ("preview", "lines"),
    [
        (SAME, "changes=false\ndigest=0123456789abcdef\n"),
        (CHANGES, "changes=true\ndigest=\n"),
        ("", "changes=true\ndigest=\n"),
    ],
)
def test_later_steps_get_what_they_need(tmp_path: Path, preview: str, lines: str) -> None:
    """Added to the file that CI names; what is not known counts as a change."""
    outputs = tmp_path / "outputs"
    outputs.write_text("before=1\n")
    run(tmp_path, "--outputs", str(outputs), preview=preview)
    assert outputs.read_text() == f"before=1\n{lines}"


def test_a_preview_that_cannot_be_read_still_gives_a_comment(tmp_path: Path) -> None:
    """Else the one of an earlier push would be taken for this one's. The stack's name comes from the caller then."""
    done = run(tmp_path, "--stack", "production", "--comment", "c.md", preview="error: no passphrase\n")
    assert done.returncode == 2
    assert "shows no JSON" in done.stderr
    text = (tmp_path / "c.md").read_text()
    assert text.startswith("<!-- fleet-plan: production -->\n")
    assert "> The preview failed" in text


def test_the_callers_name_of_the_stack_is_taken(tmp_path: Path) -> None:
    """A preview that failed early names none, and a pull request's own program could name another one's."""
    failed = stream(outputs={}, said=(("error", "a: is missing"),)).splitlines(keepends=True)
    early = "".join(line for line in failed if "urn:" not in line)
    for preview in (early, SAME):
        text = run(tmp_path, "--stack", "staging", preview=preview).stdout
        assert text.startswith("<!-- fleet-plan: staging -->\n")


def test_a_limit_is_kept_or_refused(tmp_path: Path) -> None:
    """Below the smallest nothing can be said."""
    assert len(run(tmp_path, "--limit", "8000", preview=CHANGES).stdout) < 8000
    done = run(tmp_path, "--limit", "100", preview=CHANGES)
    assert done.returncode == 2
    assert "give at least 8000" in done.stderr


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """No traceback, and a comment all the same."""
    done = run(tmp_path, "missing.json", "--stack", "dev", "--comment", "c.md")
    assert done.returncode == 2
    assert "missing.json" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "c.md").exists()
