"""A state keeps the request to clean a host up; every later program understands it.

`requests/` holds one of each version and of each shape that a version had. Files are added, and never changed.
"""

import json
from pathlib import Path

import pytest

from infra.errors import PlaybookError
from infra.playbook.request import VERSION, RunRequest

RECORDED = sorted(Path(__file__).with_name("requests").glob("*.json"))


@pytest.mark.parametrize("path", RECORDED, ids=[path.stem for path in RECORDED])
def test_every_recorded_request_is_understood(path: Path) -> None:
    """Host, playbook and way to it are those that were written, whatever members were added or dropped since."""
    request = RunRequest.from_json(path.read_text())
    assert request.hosts() == ("web-1",)
    assert request.playbook == "ansible/ai-client-decommission.yml"
    assert (request.ssh_config, request.known_hosts) == ("Host web-1\n", "web-1 ssh-ed25519 AAAA\n")


def test_there_is_a_recorded_request_of_each_version() -> None:
    """Who raises the version adds one."""
    versions = {json.loads(path.read_text()).get("version", 1) for path in RECORDED}
    assert versions == set(range(1, VERSION + 1))


def test_what_is_written_is_read_back() -> None:
    """The other way round."""
    request = RunRequest.from_json(RECORDED[0].read_text())
    assert RunRequest.from_json(request.as_json()) == request


def test_a_later_programs_request_is_refused_with_the_way_out() -> None:
    """It may say something that must not be ignored."""
    with pytest.raises(PlaybookError, match=f"version {VERSION + 1}, .* check out the release that wrote it"):
        RunRequest.from_json(json.dumps({"version": VERSION + 1, "playbook": "p", "inventory": {}}))


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"version": "x"}'])
def test_what_is_no_request_is_one_error(text: str) -> None:
    """And no traceback."""
    with pytest.raises(PlaybookError, match="the request of a run: can't be read"):
        RunRequest.from_json(text)
