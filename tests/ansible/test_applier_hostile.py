"""What others may have put where our files go."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from applier.on_host.difference import compare
from applier.on_host.errors import ApplyError
from applier.on_host.items import File, Found, Ids
from applier.on_host.masking import fingerprint, mask
from applier.on_host.request import parse_request
from applier.on_host.trust import split_bundle

from tests.ansible.folder_host import UID, Rig, Wanted


def test_a_link_in_a_files_place_is_replaced_and_not_followed(rig: Rig, tmp_path: Path) -> None:
    """The key never goes where a link leads."""
    rig.ask(Wanted())
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    key = rig.path("/etc/ai-client/key")
    key.unlink()
    key.symlink_to(victim)
    assert not rig.ask(Wanted()).failed
    assert victim.read_text() == "theirs"
    assert not key.is_symlink()


@pytest.mark.parametrize("folder", ["/var/log/ai-client", "/var/cache/ai-client", "/etc/ai-client"])
def test_a_link_in_a_folders_place_is_refused(rig: Rig, tmp_path: Path, folder: str) -> None:
    """Nobody's folder gets our owner and mode because of a link to it."""
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o700)
    rig.path(folder).symlink_to(victim)
    answer = rig.ask(Wanted())
    assert answer.failed
    assert folder in answer.message
    assert "no folder" in answer.message
    assert (victim.stat().st_uid, victim.stat().st_mode & 0o777) == (0, 0o700)


def test_links_inside_our_folders_are_not_followed_when_they_are_removed(rig: Rig, tmp_path: Path) -> None:
    """The service's user can put links into its own folders; what they lead to survives."""
    rig.ask(Wanted())
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("theirs")
    rig.path("/var/log/ai-client/link").symlink_to(victim)
    rig.ask(Wanted(mode="decommission"))
    assert (victim / "file").read_text() == "theirs"
    assert not rig.path("/var/log/ai-client").exists()


def test_a_folder_or_pipe_in_a_files_place(rig: Rig) -> None:
    """A folder may hold what somebody needs and is refused; a pipe blocks nobody and is replaced."""
    rig.ask(Wanted())
    config = rig.path("/etc/ai-client/ai-client.conf")
    config.unlink()
    os.mkfifo(config)
    assert not rig.ask(Wanted()).failed
    assert config.is_file()
    config.unlink()
    config.mkdir()
    answer = rig.ask(Wanted())
    assert answer.failed
    assert "is a folder where a file belongs" in answer.message


def test_a_folder_with_other_owner_or_mode_is_put_right(rig: Rig) -> None:
    """A config folder that the service could write to would let it change its own configuration."""
    rig.ask(Wanted())
    home = rig.path("/etc/ai-client")
    os.chown(home, UID, 0)
    home.chmod(0o777)
    answer = rig.ask(Wanted())
    assert [change.path for change in answer.changes] == ["/etc/ai-client"]
    assert (home.stat().st_uid, home.stat().st_mode & 0o777) == (0, 0o750)


@pytest.mark.parametrize(
    "path", ["/", "/var", "/etc", "relative", "/data/../etc", "/data//x", "/var/log/ai-client"]
)
def test_a_dangerous_folder_is_refused_before_anything_happens(path: str) -> None:
    """Its owner would change, and a decommission would remove it."""
    with pytest.raises(ApplyError) as raised:
        parse_request(Wanted(cache_dir=path).encode(), Wanted().manner())
    assert "ai_" in str(raised.value)


def test_a_custom_folder_with_somebodys_files_is_refused(rig: Rig) -> None:
    """It would be removed with them one day."""
    rig.path("/data/cache").mkdir(parents=True)
    rig.path("/data/cache/file").write_text("theirs")
    answer = rig.ask(Wanted(cache_dir="/data/cache"))
    assert answer.failed
    assert "contains files that are not this project's" in answer.message


def test_a_custom_folder_whose_parent_is_missing_is_refused(rig: Rig) -> None:
    """What we do not make we need not remove."""
    answer = rig.ask(Wanted(cache_dir="/data/deep/cache"))
    assert answer.failed
    assert "parent folder is missing" in answer.message


def test_secrets_in_a_hand_edited_file_are_masked(rig: Rig) -> None:
    """A diff shows the bytes on the host, but for what looks like a key or a password."""
    rig.ask(Wanted())
    text = "proxy_url = http://joe:pw123456@proxy:3128\napi_key = hs_live_0123456789\npassword: tiger-tiger\n"
    rig.path("/etc/ai-client/ai-client.conf").write_text(text)
    told = rig.ask(Wanted(check=True)).encode()
    for secret in ("pw123456", "hs_live_0123456789", "tiger-tiger"):
        assert secret not in told
    assert "hs_live_[masked]" in told or "api_key = [masked]" in told


def test_a_difference_that_lies_in_a_masked_part_is_still_told() -> None:
    """Two texts that are masked alike do not pass for equal."""
    ids = Ids(1, 2)
    item = File("/f", b"password = one\n", "ai-client", 0o640)
    change = compare(item, Found("file", b"password = two\n", "", 0, 2, 0o640), ids)
    assert change is not None
    assert change.before != change.after
    assert "not shown" in change.after


def test_bytes_that_are_no_text_are_shown_without_harm(rig: Rig) -> None:
    """Garbage in the file on the host breaks neither the plan nor the answer."""
    rig.ask(Wanted())
    rig.path("/etc/ai-client/ai-client.conf").write_bytes(b"\xff\x00\x1b[31m" * 100_000)
    told = rig.ask(Wanted(check=True)).encode()
    assert json.loads(told.removeprefix("ai-client-applier: "))["changed"]
    assert len(told) < 400_000


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("token_limit = 100000", True),
        ("token_sha256 = " + "a" * 64, True),
        ("max_tokens = 5", True),
        ("secret_name = value1", False),
        ("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----", False),
    ],
)
def test_masking_knows_limits_from_secrets(text: str, kept: bool) -> None:
    """Numbers of tokens are no tokens."""
    assert (mask(text) == text) == kept


def test_a_fingerprint_is_the_one_that_the_client_shows() -> None:
    """Twelve hex digits of the SHA-256."""
    assert (
        fingerprint("hs_test_x")
        == "".join(f"{b:02x}" for b in __import__("hashlib").sha256(b"hs_test_x").digest())[:12]
    )


@pytest.mark.parametrize(
    "bundle",
    [
        "no certificate",
        "-----BEGIN CERTIFICATE-----\nAAAA\n",
        "-----BEGIN CERTIFICATE-----\nAAAA=A==\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" * 2,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\nA\n",
    ],
)
def test_a_bundle_that_is_none_is_refused(bundle: str) -> None:
    """Cut off, doubled, with a private key or without any certificate."""
    with pytest.raises(ApplyError, match="ai_custom_ca"):
        split_bundle(bundle, folder="/store")
