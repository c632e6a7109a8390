"""The page for a host's operator says what the code does; tests/ansible/test_hosts_node_page.py types its commands."""

import re
from dataclasses import fields

import pytest
import yaml

from ai_client.batch import lines
from ai_client.batch.runner import BatchEnd
from ai_client.cli import arguments, batch, batch_serve, bench, reload, serve, shared_batch
from ai_client.configure import changes
from ai_client.configure.changes import Changes
from ai_client.contract.request import Response
from ai_client.gateway.app import headers
from ai_client.settings import Settings
from tests.infra.stacks import PROJECT

PAGE = (PROJECT / "docs" / "how-to" / "node.md").read_text(encoding="utf-8")
ALERTS = PROJECT / "client" / "observability" / "alerts.yml"


def rows(heading: str) -> dict[str, list[str]]:
    """The rows of the tables under a heading, by their first cell; of equal ones the last."""
    part = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = [re.split(r" \| ", line.strip("| ")) for line in part.splitlines() if line.startswith("| ")]
    return {first: rest for first, *rest in cells}


def test_every_alert_has_its_row() -> None:
    """And no row an alert that is none."""
    [group] = yaml.safe_load(ALERTS.read_text())["groups"]
    assert set(rows("Alerts")) - {"alert"} == {f"`{rule['alert']}`" for rule in group["rules"]}


def test_every_header_that_steers_a_request_has_its_row() -> None:
    """But for those that HTTP and the APIs have anyway."""
    ordinary = {b"authorization", b"x-api-key", b"host", b"origin"}
    ordinary |= {b"content-type", b"content-length", b"content-encoding", b"cache-control"}
    told = {name.strip("`").lower().encode() for name in rows("Headers") if "header of" not in name}
    answer = Response(status=200, headers={}, body=b"{}", model="gpt-4.1", cost_usd=0.1)
    sent = {name for name, _ in [*headers.about(answer), *headers.OF_STREAMS]}
    assert told == (set(headers._TAKERS) | sent) - ordinary


@pytest.mark.parametrize(
    ("wanted", "told"), [(changes._CLIENT, "makes a new client"), (changes._PROCESS, "loads everything else")]
)
def test_the_table_of_reloads_is_that_of_the_code(wanted, told: str) -> None:
    """Each key by the name that it has in the file, under its section."""
    [row] = [first for first, rest in rows("Reload").items() if rest[0].startswith(told)]
    named = {
        (section, key.strip("` "))
        for section, keys in re.findall(r"`\[(\w+)\]` ([^·`]+)", row)
        for key in keys.split(",")
    }
    defaults = Settings()
    expected = {
        (section, item.metadata["key"])
        for section, names in wanted
        for item in fields(getattr(defaults, section))
        if item.name in names
    }
    assert named == expected


def test_what_a_reload_takes_is_decided_by_that_table() -> None:
    """Nothing else makes a client or a process new."""
    assert changes.changes(Settings(), Settings()) == Changes((), needs_client=False, needs_process=False)
    [row] = [first for first in rows("Reload") if first.startswith("`[api]`")]
    for word in ("[model_costs]", "[cost_tags]", "budgets of tenants"):
        assert word in row


def test_exit_codes_are_those_of_the_code() -> None:
    """The numbers that scripts rely on."""
    part = PAGE.split("\n## Exit codes\n")[1].split("\n## ")[0]
    told: dict[str, set[int]] = {}
    for command, codes in re.findall(r"^\| (\S[^|]*?) \| ([\d, ]+) \|", part, re.MULTILINE):
        told.setdefault(command.strip("`"), set()).update(int(code) for code in codes.split(","))
    endings = {batch.EXIT_BY_ENDING[ending] for ending in BatchEnd if ending is not BatchEnd.DONE}
    assert told["batch run"] == {0, batch.EXIT_FAILED_LINES, batch.EXIT_UNUSABLE} | endings
    assert told["serve"] == {0, 1, serve.EXIT_CONFIG}
    shared = {0, shared_batch.EXIT_UNUSABLE, shared_batch.EXIT_NO_ENGINE}
    unfinished = {shared_batch.EXIT_UNFINISHED, shared_batch.EXIT_STOPPED}
    assert told["batch submit"] == shared | unfinished
    assert told["batch fetch"] == {1, shared_batch.EXIT_UNWRITABLE} | shared | unfinished
    assert told["batch status`, `batch cancel"] == shared
    assert told["batch serve"] == {0, 1, batch_serve.EXIT_CONFIG}
    assert told["reload"] == {0, 1, reload.EXIT_RESTART_NEEDED}
    assert told["bench"] == {0, bench.EXIT_TARGET, bench.EXIT_UNUSABLE}
    assert told["every one"] == {arguments.EXIT_USAGE}


def test_lines_of_a_batch_are_as_the_page_has_them() -> None:
    """What is read, and the members of what is written."""
    asked, *_ = re.findall(r"^\{.*\}$", PAGE, re.MULTILINE)
    line = lines.parse(1, asked.encode())
    assert isinstance(line, lines.RequestLine)
    assert all(f"`{url}`" in PAGE for url in lines.URLS)
    answer = lines.success(line, status=200, request_id="r", body=b"{}", cost_usd=0.1)
    tables = set(rows("A batch"))
    assert {f"`{name}`" for name in re.findall(r'[{,]"(id|code|cost_usd|\w+)":', answer.decode())} - {
        "`status_code`",
        "`request_id`",
        "`body`",
    } <= tables
