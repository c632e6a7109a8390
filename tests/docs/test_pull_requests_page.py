"""The page on pull requests: its commands are typed in an empty clone, and it names what the workflows name.

Those that bind a key to looking are typed in tests/ansible/test_probe_identity.py, on real hosts.
"""

import re
from pathlib import Path

import pytest
import yaml

from tests.ci.workflows import FOLDER, NAMES, load
from tests.docs.conftest import NewClone
from tests.docs.pages import text_of, walk
from tests.docs.reader import new_reader
from tests.infra.stacks import PROJECT

PAGE = text_of("docs/how-to/pull-requests.md")
GITLAB = PROJECT / "docs" / "ci" / "gitlab" / ".gitlab-ci.yml"


@pytest.mark.engine
def test_the_commands_of_the_page_give_a_plan_and_the_workflows(tmp_path: Path, new_clone: NewClone) -> None:
    """On the shipped production stack, whose hosts are never contacted."""
    checkout = new_clone("production")
    reader = new_reader(checkout, tmp_path / "home")
    reader.types("tools/env pulumi stack init production")
    with walk("docs/how-to/pull-requests.md") as page:
        for command in page.rest():
            reader.types(command.text)
    assert "⛔ blocked" in (checkout.folder / "build" / "comment.md").read_text()
    assert "⛔ blocked" in (checkout.folder / "build" / "plan.html").read_text()
    copied = sorted(path.name for path in (checkout.folder / ".github" / "workflows").iterdir())
    assert copied == NAMES


def test_the_page_names_every_environment_secret_and_variable() -> None:
    """What a workflow asks for and nobody sets is empty without a word."""
    text = "".join((FOLDER / name).read_text(encoding="utf-8") for name in NAMES) + GITLAB.read_text(
        encoding="utf-8"
    )
    asked = set(re.findall(r"\b(?:secrets|vars)\.([A-Z_]+)", text)) | set(
        re.findall(r"\b(FLEET_[A-Z_]+)", text)
    )
    asked |= {
        job["environment"] for name in NAMES for job in load(name)["jobs"].values() if "environment" in job
    }
    assert [name for name in sorted(asked) if f"`{name}`" not in PAGE] == []


def test_the_table_of_environments_is_that_of_the_workflows() -> None:
    """Which secrets each environment holds."""
    rows = dict(re.findall(r"^\| `(fleet-[a-z]+)` \|.*?\|.*?\| (.*?) \|", PAGE, re.MULTILINE))
    for name in NAMES:
        for job in load(name)["jobs"].values():
            secrets = set(re.findall(r"secrets\.([A-Z_]+)", yaml.safe_dump(job)))
            if secrets and rows[job["environment"]] != "the same":
                assert set(re.findall(r"`([A-Z_]+)`", rows[job["environment"]])) == secrets
