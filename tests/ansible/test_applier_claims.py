"""Who owns a host, and who may clean it up."""

from __future__ import annotations

import base64
import json
import os
import zlib
from pathlib import Path

import pytest

from tests.ansible.folder_host import Rig, Wanted


def test_a_host_of_another_owner_is_refused(rig: Rig) -> None:
    """Two stacks never own one host; the error names both and what to do."""
    rig.ask(Wanted())
    files = rig.files()
    answer = rig.ask(Wanted(owner="fleet/other", claim="fleet/other/host-01", config="[api]\n"))
    assert answer.failed
    assert "belongs to fleet/test" in answer.message
    assert "ai_claim_owner" in answer.message
    assert rig.files() == files


def test_anybody_who_may_log_in_may_ask_for_the_health_of_a_host(rig: Rig) -> None:
    """Looking changes nothing, so it takes no claim: playbooks run by hand on hosts of a stack."""
    rig.ask(Wanted())
    files = rig.files()
    answer = rig.ask(Wanted(owner="manual", claim="manual", parts=("verify",)))
    assert (answer.failed, answer.changed) == (False, False)
    assert answer.health is not None
    assert rig.files() == files


def test_a_renamed_host_is_taken_over_and_its_old_claim_wipes_nothing(rig: Rig) -> None:
    """The same owner deploys under a new name; the old name's decommission finds nothing of its own, and says so."""
    rig.ask(Wanted())
    assert not rig.ask(Wanted(claim="fleet/test/renamed")).failed
    files = rig.files()
    assert list(rig.ask(Wanted(mode="collect")).files) == []
    answer = rig.ask(Wanted(mode="decommission"))
    assert (answer.failed, answer.changed) == (False, False)
    assert "held by claim fleet/test/renamed" in answer.message
    assert rig.files() == files


def test_decommission_leaves_the_host_as_it_was_before_the_first_deploy(rig: Rig) -> None:
    """Every file, link, folder, mode and owner; with custom folder, certificates, and what others put in."""
    rig.path("/data").mkdir()
    rig.path("/usr/local/share/ca-certificates/own.crt").write_text("theirs")
    before = rig.files()
    wanted = Wanted(
        cache_dir="/data/cache", ca_bundle=certificate(1) + certificate(2), key_next="hs_test_next_key_000"
    )
    assert not rig.ask(wanted).failed
    rig.path("/data/cache/responses.sqlite3").write_text("x")
    rig.path("/run/ai-client").mkdir()
    rig.path("/etc/systemd/system/ai-client.service.d").mkdir()
    answer = rig.ask(Wanted(mode="decommission"))
    assert (answer.failed, answer.changed) == (False, True)
    assert rig.files() == before
    assert not rig.host.state["identity"]
    assert rig.host.state["running"] == {}


def test_decommission_of_a_clean_host_does_nothing(rig: Rig) -> None:
    """A second run, or a host that no deploy ever reached."""
    before = rig.files()
    answer = rig.ask(Wanted(mode="decommission"))
    assert (answer.failed, answer.changed) == (False, False)
    assert rig.files() == before
    assert rig.host.state["commands"] == []


def test_decommission_in_check_mode_names_what_would_go(rig: Rig) -> None:
    """Nothing is stopped or removed."""
    rig.ask(Wanted())
    before, commands = rig.files(), rig.host.state["commands"]
    answer = rig.ask(Wanted(mode="decommission", check=True))
    assert {"/opt/ai-client", "/var/log/ai-client", "user ai-client"} <= {
        change.path for change in answer.changes
    }
    assert (rig.files(), rig.host.state["commands"]) == (before, commands)


def test_a_lost_marker_does_not_save_the_rest(rig: Rig) -> None:
    """Somebody removed /etc/ai-client by hand: service, releases and user still go."""
    rig.ask(Wanted())
    for path in rig.path("/etc/ai-client").iterdir():
        path.unlink()
    rig.path("/etc/ai-client").rmdir()
    rig.ask(Wanted(mode="decommission"))
    assert not rig.path("/opt/ai-client").exists()
    assert rig.host.state["running"] == {}


def test_files_of_hand_run_playbooks_on_a_host_we_never_had_stay(rig: Rig) -> None:
    """A claim whose first deploy never reached the host has no right to what is there."""
    home = rig.path("/etc/ai-client")
    home.mkdir()
    (home / "ai-client.conf").write_text("[api]\n")
    rig.ask(Wanted(mode="decommission"))
    assert (home / "ai-client.conf").exists()


def test_ledger_and_audit_log_are_handed_out_before(rig: Rig) -> None:
    """Listed and read in pieces with the service stopped; links and other files are not handed out."""
    rig.ask(Wanted())
    folder = rig.path("/var/lib/ai-client")
    content = os.urandom(100_000)
    (folder / "ledger.sqlite3").write_bytes(content)
    (folder / "audit.link").symlink_to("/etc/shadow")
    (rig.path("/var/log/ai-client") / "audit.jsonl").write_text('{"model": "gpt-4.1"}\n')
    listed = rig.ask(Wanted(mode="collect")).files
    assert {file["path"] for file in listed} == {
        "/var/lib/ai-client/ledger.sqlite3",
        "/var/log/ai-client/audit.jsonl",
    }
    assert "ai-client.service" not in rig.host.state["running"]
    pieces = [
        rig.ask(
            Wanted(mode="collect", collect={"path": listed[0]["path"], "offset": offset, "size": 60_000})
        ).files[0]
        for offset in (0, 60_000)
    ]
    assert b"".join(zlib.decompress(base64.b64decode(piece["data"])) for piece in pieces) == content


@pytest.mark.parametrize(
    "path", ["/etc/shadow", "/etc/ai-client/key", "/var/lib/ai-client/../ai-client/ledger"]
)
def test_nothing_else_is_handed_out(rig: Rig, path: str) -> None:
    """The request names a path; only those of the list are read."""
    rig.ask(Wanted())
    answer = rig.ask(Wanted(mode="collect", collect={"path": path, "offset": 0, "size": 10}))
    assert answer.failed
    assert "not a ledger or audit log" in answer.message


def test_a_marker_that_is_no_marker_stops_everything(rig: Rig) -> None:
    """Nobody guesses whose host it is."""
    rig.ask(Wanted())
    rig.path("/etc/ai-client/claim.json").write_text("{}")
    for mode in ("apply", "decommission"):
        answer = rig.ask(Wanted(mode=mode))
        assert answer.failed
        assert "does not say whose this host is" in answer.message


def test_the_journal_has_a_line_for_each_run_that_changed_something(rig: Rig) -> None:
    """Time, release, config digest, key fingerprint and result; no key."""
    rig.ask(Wanted())
    rig.ask(Wanted())
    rig.ask(Wanted(config="[api]\ntimeout = 8\n", run="run-2"))
    lines = [json.loads(line) for line in rig.path("/etc/ai-client/releases.jsonl").read_text().splitlines()]
    assert [(line["run"], line["result"]) for line in lines] == [("run-1", "ok"), ("run-2", "ok")]
    assert lines[0]["release"] == Wanted().digest
    assert "hs_test_" not in json.dumps(lines)


def certificate(number: int) -> str:
    """Something in the form of a certificate."""
    body = base64.b64encode(bytes([number]) * 90).decode()
    return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"


def test_each_certificate_of_a_bundle_is_a_file_of_the_store(rig: Rig) -> None:
    """Two certificates, two files and one bundle for the client; taken away again when the variable is emptied."""
    store: Path = rig.path("/usr/local/share/ca-certificates")
    rig.ask(Wanted(ca_bundle=certificate(1) + certificate(2)))
    assert len(list(store.iterdir())) == 2
    assert rig.path("/etc/ai-client/ca-bundle.pem").read_text().count("BEGIN CERTIFICATE") == 2
    rig.ask(Wanted(ca_bundle=certificate(2)))
    assert len(list(store.iterdir())) == 1
    rig.ask(Wanted())
    assert list(store.iterdir()) == []
    assert not rig.path("/etc/ai-client/ca-bundle.pem").exists()
    assert rig.host.state["commands"].count("update-ca-certificates") == 3
