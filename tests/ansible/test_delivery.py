"""The controller's half: artefacts, orders, and the talk with a host."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from applier.on_controller import round_trips, wire
from applier.on_controller.artefact import read_artefact
from applier.on_controller.delivery import Delivery, make_delivery
from applier.on_controller.errors import DeliveryError, WithoutPythonError
from applier.on_controller.results import from_answer
from applier.on_controller.variables import check_key, key_prefixes, read_certificates, unknown_names

from tests.ansible.folder_host import KEY, TAG
from tests.ansible.test_role import TEMPLATES, defaults

ANSWER: dict[str, Any] = {
    "changed": False,
    "failed": False,
    "message": "",
    "changes": [],
    "actions": [],
    "health": None,
    "rolled_back": False,
    "watched": None,
    "tried_keys": [],
    "needs": "",
    "state": dict.fromkeys(
        ("release", "config_digest", "key_fingerprint", "key_next_fingerprint", "claim", "journal"), ""
    ),
    "files": [],
}


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    """A folder as tools/artefact/build makes it."""
    packed = b"packed tree"
    (tmp_path / f"{TAG}.tar.gz").write_bytes(packed)
    tree = {"file": f"{TAG}.tar.gz", "sha256": hashlib.sha256(packed).hexdigest(), "glibc_min": "2.17"}
    other = {"file": "other.tar.gz", "sha256": "b" * 64, "glibc_min": None}
    index = {"version": "1.0.0", "trees": {TAG: tree, "cp313-x86_64": other}}
    (tmp_path / "index.json").write_text(json.dumps(index))
    return tmp_path


def order(folder: Path, *, check: bool = False, **changes: Any) -> Delivery:
    """An order for everything."""
    values = {**defaults(), "ai_artefacts": str(folder), **changes}
    return make_delivery(
        mode="apply",
        parts=frozenset({"deploy", "config", "secrets", "verify"}),
        check=check,
        values=values,
        secrets={"ai_api_key": KEY, "ai_api_key_next": ""},
        templates=TEMPLATES,
    )


def test_a_look_needs_no_build_and_a_deploy_does(made_up: Path) -> None:
    """Only a look takes `unbuilt` in the place of a folder."""
    looked = order(made_up, check=True, ai_artefacts="unbuilt")
    assert (looked.artefact, looked.request["trees"]) == (None, {})
    assert looked.request["units"] == order(made_up).request["units"]
    with pytest.raises(DeliveryError, match=r"unbuilt/index\.json.*tools/artefact/build"):
        order(made_up, ai_artefacts="unbuilt")


def test_a_pin_on_the_index_keeps_all_trees_and_a_pin_on_a_tree_that_one(made_up: Path) -> None:
    """Both are exact; another digest is an error."""
    whole = hashlib.sha256((made_up / "index.json").read_bytes()).hexdigest()
    assert len(read_artefact(str(made_up), version="", pin=whole).trees) == 2
    assert list(read_artefact(str(made_up), version="", pin="b" * 64).trees) == ["cp313-x86_64"]
    with pytest.raises(DeliveryError, match="ai_client_digest"):
        read_artefact(str(made_up), version="", pin="c" * 64)


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ({"ai_client_version": "0.2.0"}, "ai_client_version"),
        ({"ai_artefacts": ""}, "ai_artefacts"),
        ({"ai_artefacts": "/nowhere"}, "/nowhere/index.json"),
        ({"ai_custom_ca": "/nowhere/ca.pem"}, "ai_custom_ca"),
    ],
)
def test_a_wrong_variable_is_named_with_its_remedy(
    made_up: Path, changes: dict[str, str], culprit: str
) -> None:
    """Before any host is asked."""
    with pytest.raises(DeliveryError, match=culprit):
        order(made_up, **changes)


@pytest.mark.parametrize("value", ["sk-0123456789", "hs_test_short1", "hs_live_0123 4567", KEY + "\n" + KEY])
def test_something_that_is_no_key_is_refused_without_being_shown(value: str) -> None:
    """The error names the variable and at most the prefix."""
    with pytest.raises(DeliveryError) as raised:
        check_key("ai_api_key", value)
    assert "ai_api_key" in str(raised.value)
    assert value[8:] not in str(raised.value)


@pytest.mark.parametrize(
    ("values", "key", "is_taken"),
    [
        ({"ai_base_url": "https://api.holysheep.ai/v1"}, "sk-0123456789", False),
        ({"ai_base_url": "https://api.openai.com/v1"}, "sk-0123456789", True),
        ({"ai_base_url": "https://api.openai.com/v1"}, "sk-0123 456789", False),
        ({"ai_base_url": "https://api.openai.com/v1", "ai_key_prefix": "sk-proj-"}, "sk-0123456789", False),
        ({"ai_key_prefix": "sk-"}, "sk-0123456789", True),
    ],
)
def test_a_key_has_the_form_of_its_provider(values: dict[str, str], key: str, is_taken: bool) -> None:
    """A prefix is asked for where one is declared, and at HolySheep's address."""
    if is_taken:
        assert check_key("ai_api_key", key, key_prefixes(values)) == key
        return
    with pytest.raises(DeliveryError) as raised:
        check_key("ai_api_key", key, key_prefixes(values))
    assert key[3:] not in str(raised.value)


@pytest.mark.parametrize(("key_from", "is_tried"), [("file", True), ("credential", False), ("google", False)])
def test_a_key_that_the_host_has_itself_is_not_tried_by_the_run(
    made_up: Path, key_from: str, is_tried: bool
) -> None:
    """The run has nothing but the text that stands in its place, and would ask the provider with that."""
    request = order(made_up, ai_key_from=key_from, ai_try_keys=True).request
    assert (request["tries_keys"], request["tries_upstream_keys"]) == (is_tried, True)


def test_a_missing_key_names_both_ways_to_give_it(made_up: Path) -> None:
    """Vault and the environment."""
    with pytest.raises(DeliveryError, match="HOLYSHEEP_API_KEY"):
        make_delivery(
            mode="apply",
            parts=frozenset({"secrets"}),
            check=False,
            values=defaults(),
            secrets={"ai_api_key": ""},
            templates=TEMPLATES,
        )


def test_the_tree_is_sent_only_when_the_host_asks_for_it(made_up: Path) -> None:
    """One round trip where the host has the release, a second one with the bytes where it has not."""
    sent: list[bytes] = []

    def send(needs: list[str]) -> round_trips.Send:
        def answer(_: str, stdin: bytes) -> tuple[int, str, str]:
            sent.append(stdin)
            return 0, "Welcome!\n" + wire.PREFIX + json.dumps({**ANSWER, "needs": needs.pop(0)}) + "\n", ""

        return answer

    round_trips.run(order(made_up), program=b"", start="", send=send([""]))
    assert [b"packed tree" in stdin for stdin in sent] == [False]
    round_trips.run(order(made_up), program=b"", start="", send=send([TAG, ""]))
    assert [b"packed tree" in stdin for stdin in sent] == [False, False, True]


def test_a_tree_that_was_changed_on_the_controller_is_not_sent(made_up: Path) -> None:
    """Its digest is held against the index first."""
    (made_up / f"{TAG}.tar.gz").write_bytes(b"other")
    with pytest.raises(DeliveryError, match="another digest"):
        order(made_up).artefact.read_tree(TAG)  # type: ignore[union-attr]


def test_no_answer_is_an_error_that_shows_what_was_said() -> None:
    """A host without Python, or sudo that asks for a password."""
    with pytest.raises(DeliveryError, match="sudo: a password is required"):
        wire.decode_output(status=1, stdout="", stderr="sudo: a password is required\n")


def test_what_a_profile_prints_does_not_hide_the_answer() -> None:
    """Codes of a terminal before it on its line (ansible/ansible issue 14503), a greeting, a terminal's line ends."""
    said = f"Welcome!\r\n\x1b[?25h\x1b[0G{wire.PREFIX}{json.dumps(ANSWER)}\r\nlogout\r\n"
    assert wire.decode_output(status=0, stdout=said, stderr="") == ANSWER
    with pytest.raises(WithoutPythonError) as lacking:
        wire.decode_output(
            status=0, stdout="\x1b[?25hai-client-applier found no python on x86_64\n", stderr=""
        )
    assert lacking.value.machine == "x86_64"


def test_every_login_shell_passes_the_commands_on() -> None:
    """csh takes no line end and no exclamation mark within quotes, where Ansible puts the command."""
    for text in (
        wire.start("/usr/bin/python3"),
        wire.find_and_start(),
        wire.bring_and_start(size=4, digest="0" * 64),
    ):
        assert not set(text) & {"\n", "!"}


def test_the_loader_holds_nothing_but_itself() -> None:
    """What `ps` shows is the same for every host, release and key."""
    assert wire.command("/usr/bin/python3") == ("/usr/bin/python3", "-I", "-S", "-c", wire.LOADER)
    assert len(wire.LOADER) < 80


def test_the_program_that_is_sent_starts_and_answers() -> None:
    """The very bytes that a host gets, run as a host runs them: a request of another protocol is refused."""
    request = {"protocol": 0}
    stdin = wire.encode_input(wire.program_text(), request).replace(b'"protocol": 0', b'"protocol": 9')
    done = subprocess.run(
        wire.command(sys.executable),
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
        env={"PATH": os.defpath},
    )
    answer = wire.decode_output(
        status=done.returncode, stdout=done.stdout.decode(), stderr=done.stderr.decode()
    )
    assert answer["failed"]
    assert "protocol" in answer["message"]


def test_ledger_and_audit_log_are_kept_before_a_decommission(tmp_path: Path) -> None:
    """In a folder of the claim's name, in pieces, whole before the host is told to remove them; none is overwritten."""
    content = os.urandom(9_000_000)
    modes: list[str] = []

    def send(_: str, stdin: bytes) -> tuple[int, str, str]:
        sizes, _, rest = stdin.partition(b"\n")
        request = json.loads(rest[: int(sizes.split()[0])])
        modes.append(request["mode"])
        files: list[dict[str, Any]] = []
        if request["mode"] == "collect" and not request["collect"]:
            files = [{"path": "/var/lib/ai-client/ledger.sqlite3", "size": len(content)}]
        elif request["mode"] == "collect":
            start, size = request["collect"]["offset"], request["collect"]["size"]
            files = [{"data": base64.b64encode(zlib.compress(content[start : start + size])).decode()}]
        return 0, wire.PREFIX + json.dumps({**ANSWER, "files": files}), ""

    values = {**defaults(), "ai_fetch_dir": str(tmp_path), "ai_claim": "fleet/t/h1"}
    made = make_delivery(
        mode="decommission", parts=frozenset(), check=False, values=values, secrets={}, templates=TEMPLATES
    )
    round_trips.run(made, program=b"", start="", send=send)
    assert (tmp_path / "fleet_t_h1" / "ledger.sqlite3").read_bytes() == content
    assert modes == ["collect", "collect", "collect", "decommission"]
    content = b"of a later host of the same name"
    round_trips.run(made, program=b"", start="", send=send)
    assert (tmp_path / "fleet_t_h1-2" / "ledger.sqlite3").read_bytes() == content
    assert len((tmp_path / "fleet_t_h1" / "ledger.sqlite3").read_bytes()) == 9_000_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fleet_t_h1", "fleet_t_h1-2"]


def test_files_of_one_name_from_several_folders_are_kept_apart() -> None:
    """A folder that was moved leaves a second audit log: none is written over another."""
    files = [
        {"path": "/var/lib/ai-client/ledger.sqlite"},
        {"path": "/var/log/ai-client/audit.jsonl"},
        {"path": "/data/log/audit.jsonl"},
        {"path": "/data_log/audit.jsonl"},
    ]
    assert [str(place) for _, place in round_trips.apart(files)] == [
        "ledger.sqlite",
        "var%2Flog%2Fai-client/audit.jsonl",
        "data%2Flog/audit.jsonl",
        "data_log/audit.jsonl",
    ]


def test_a_folder_that_cannot_be_written_to_stops_before_the_host_is_touched(tmp_path: Path) -> None:
    """A full or read-only disk on the controller: the error names it, and the decommission is not sent."""
    (tmp_path / "kept").write_text("a file")
    modes: list[str] = []

    def send(_: str, stdin: bytes) -> tuple[int, str, str]:
        sizes, _, rest = stdin.partition(b"\n")
        modes.append(json.loads(rest[: int(sizes.split()[0])])["mode"])
        files = [{"path": "/var/lib/ai-client/ledger.sqlite", "size": 1}]
        return 0, wire.PREFIX + json.dumps({**ANSWER, "files": files}), ""

    values = {**defaults(), "ai_fetch_dir": str(tmp_path / "kept")}
    made = make_delivery(
        mode="decommission", parts=frozenset(), check=False, values=values, secrets={}, templates=TEMPLATES
    )
    with pytest.raises(DeliveryError, match=r"kept.*ai_fetch_dir"):
        round_trips.run(made, program=b"", start="", send=send)
    assert modes == ["collect"]


def test_the_result_has_the_diff_in_ansibles_form_only_when_asked() -> None:
    """`--diff` shows it."""
    answer = {**ANSWER, "changes": [{"path": "/etc/x", "before": "a\n", "after": "b\n"}]}
    assert "diff" not in from_answer(answer, diff=False)
    assert from_answer(answer, diff=True)["diff"][0]["before_header"] == "/etc/x"


def test_a_mistyped_variable_is_warned_of_with_the_nearest_name() -> None:
    """It would have no effect and nobody would see it."""
    warnings = unknown_names(["ai_modle_default", "ai_timeout"], ["ai_model_default", "ai_timeout"])
    assert len(warnings) == 1
    assert "did you mean ai_model_default?" in warnings[0]


def test_certificates_come_as_text_or_from_a_file(tmp_path: Path) -> None:
    """Text that is PEM is taken as it is."""
    file = tmp_path / "ca.pem"
    file.write_text("-----BEGIN CERTIFICATE-----\n")
    assert read_certificates(str(file)) == file.read_text()
    assert read_certificates(file.read_text()) == file.read_text()


@pytest.mark.parametrize(
    ("changes", "address"),
    [
        ({}, "127.0.0.1:9090"),
        ({"ai_metrics_host": "0.0.0.0", "ai_metrics_port": 9100}, "127.0.0.1:9100"),  # noqa: S104 - as a user may
        ({"ai_metrics_host": "::"}, "[::1]:9090"),
        ({"ai_metrics_host": "10.0.1.11"}, "10.0.1.11:9090"),
        ({"ai_enable_metrics": False}, ""),
        ({"ai_export_prometheus": False}, ""),
    ],
)
def test_a_host_looks_at_its_own_counters_where_it_shows_them(
    made_up: Path, changes: dict[str, Any], address: str
) -> None:
    """What listens on every address is asked on the loopback one."""
    assert order(made_up, **changes).request["gate"]["metrics"] == address


@pytest.mark.parametrize(
    ("name", "value"),
    [("seconds", -1), ("seconds", 901), ("error_share", 1.5), ("throttled_share", -0.1), ("overhead_ms", -5)],
)
def test_a_gate_that_can_not_be_is_refused_with_its_name(made_up: Path, name: str, value: float) -> None:
    """Before any host is contacted."""
    with pytest.raises(DeliveryError, match=f"ai_gate_{name}: is {value}; write a number"):
        order(made_up, **{f"ai_gate_{name}": value})


def test_how_a_change_goes_out_is_no_part_of_what_is_desired(made_up: Path) -> None:
    """An unchanged host passes the unchanged check where only the gate is set otherwise."""
    slow, fast = (order(made_up, ai_gate_seconds=seconds, ai_try_keys=False).request for seconds in (60, 1))
    assert slow["gate"] != fast["gate"]
    desired = [wire.encode_input(b"", request).split(b"\n", 1) for request in (slow, fast)]
    sizes = [int(head.split()[0]) for head, _ in desired]
    assert [text[:size] for (_, text), size in zip(desired, sizes, strict=True)] == [
        desired[0][1][: sizes[0]]
    ] * 2
