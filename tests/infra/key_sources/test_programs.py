import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.errors import KeySourceError, SettingsError
from tests.client.service_rig import program
from tests.infra.key_sources.wanted import FOREIGN, NEXT, OLD, kept, keys
from tests.infra.stacks import load, shipped


def command(*argv: str, **chosen: Any) -> dict[str, Any]:
    return {"command": {"argv": list(argv)} | chosen}


def test_a_commands_output_is_the_key(tmp_path: Path) -> None:
    """In the project folder, without a shell; what it says besides is nobody's."""
    (tmp_path / "key").write_text(f"{OLD}\n")
    settings = kept(command("cat", "key"), project=tmp_path)
    assert keys(settings) == (OLD, None)
    assert OLD not in repr(settings) + settings.model_dump_json()
    assert keys(kept(command("printf", "%s", f"{OLD}"), project=tmp_path)) == (OLD, None)


def test_a_command_rotates_by_a_second_one_or_by_fields(tmp_path: Path) -> None:
    """The second prints nothing until there is a next key, as `pass` of an empty entry does."""
    key, other = tmp_path / "key", tmp_path / "next"
    key.write_text(OLD)
    other.write_text("\n")
    source = command("cat", "key", nextArgv=["cat", "next"])
    assert keys(kept(source, project=tmp_path)) == (OLD, None)
    other.write_text(NEXT)
    assert keys(kept(source, project=tmp_path)) == (OLD, NEXT)
    key.write_text(NEXT)
    assert keys(kept(source, project=tmp_path)) == (NEXT, None)
    key.write_text(json.dumps({"data": {"key": OLD}, "apiKeyNext": NEXT}))
    assert keys(kept(command("cat", "key", field="data.key"), project=tmp_path)) == (OLD, NEXT)


@pytest.mark.parametrize(
    ("argv", "chosen", "said"),
    [
        (
            ["/nowhere/vault-cli"],
            {},
            "/nowhere/vault-cli can't be started (No such file or directory); install",
        ),
        (
            ["sh", "-c", f"echo {FOREIGN}; echo {FOREIGN} >&2; exit 3"],
            {},
            "sh ended with status 3; run it by hand",
        ),
        (["sh", "-c", f"echo {FOREIGN}"], {}, "what sh prints is not a key: one starts with hs_live_"),
        (["true"], {}, "what true prints is not a key"),
        (["sh", "-c", "printf '\\377'"], {}, "sh prints something that is not text"),
        (["sh", "-c", f"echo {FOREIGN}"], {"field": "key"}, "what sh prints is not a JSON object"),
        (["cat", "/dev/zero"], {}, "cat prints more than a key"),
        (
            ["sh", "-c", "sleep 60 & wait"],
            {"timeoutS": 0.2},
            "sh did not end within 0.2 seconds; run it by hand",
        ),
    ],
)
def test_a_command_that_fails_is_named_and_its_words_are_not_repeated(
    tmp_path: Path, argv: list[str], chosen: dict[str, Any], said: str
) -> None:
    """What it writes may hold the key, on either of its outputs."""
    with pytest.raises(KeySourceError) as raised:
        kept(command(*argv, **chosen), project=tmp_path)
    assert str(raised.value).startswith("fleet:keySource: ")
    assert said in str(raised.value)
    assert FOREIGN not in str(raised.value)


def test_a_program_that_wants_a_passphrase_does_not_wait_for_one(tmp_path: Path) -> None:
    """It has no terminal, also where Pulumi has one: age and sops ask there (getsops/sops issue 933)."""
    asks = command("sh", "-c", "read key </dev/tty && echo $key")
    program = (
        "from pathlib import Path\n"
        "from infra.errors import KeySourceError\n"
        "from tests.infra.key_sources.wanted import kept\n"
        "assert open('/dev/tty')\n"
        f"try: kept({asks!r}, project=Path({str(tmp_path)!r}))\n"
        "except KeySourceError as error: print(error)\n"
    )
    ours, terminal = pty.openpty()
    argv = ["setsid", "--ctty", "--wait", sys.executable, "-c", program]
    try:
        done = subprocess.run(argv, stdin=terminal, capture_output=True, text=True, timeout=60, check=False)
    finally:
        os.close(ours)
        os.close(terminal)
    assert "sh ended with status" in done.stdout, done.stdout + done.stderr


def test_a_key_has_one_source(tmp_path: Path) -> None:
    """Two kinds, or a kind beside a secret of the stack, would leave open which one counts."""
    two = command("cat", "key") | {"age": {"file": "a", "identityFile": "b"}}
    for source, said in (
        (
            two,
            "names command and age, but a key has only one source: write one of aws, vault, command, sops, age",
        ),
        ({}, "names nothing, but a key has only one source"),
        (command("cat") | {"nfs": {}}, "fleet:keySource.nfs: unknown key"),
        ({"vault": {"path": "x", "tokn": "y"}}, "fleet:keySource.vault.tokn: unknown key"),
        ({"sops": {"file": "/etc/key"}}, "a file below the project folder is needed"),
        ({"sops": {"file": "../key"}}, "a file below the project folder is needed"),
    ):
        with pytest.raises(SettingsError, match=said):
            load(shipped("production") | {"keySource": source})
    with pytest.raises(
        SettingsError, match="fleet:keySource: is set beside fleet:apiKey; keep one of the two"
    ):
        load(shipped("production") | {"keySource": command("cat"), "apiKey": OLD})


@pytest.fixture
def identity(tmp_path: Path) -> str:
    """Public half of an age identity, whose file is `identity` in the test's folder."""
    path = tmp_path / "identity"
    subprocess.run([program("age-keygen", package="age"), "-o", path], check=True, capture_output=True)
    found = subprocess.run(["age-keygen", "-y", path], check=True, capture_output=True, text=True)
    return found.stdout.strip()


def encrypt(text: str, *, to: str, path: Path) -> None:
    subprocess.run(["age", "-r", to, "-o", path], input=text, text=True, check=True)


def test_a_file_of_age_rotates_by_its_fields(tmp_path: Path, identity: str) -> None:
    """The real age: the key alone, or an object while there are two."""
    source = {"age": {"file": "key.age", "identityFile": str(tmp_path / "identity")}}
    encrypt(f"{OLD}\n", to=identity, path=tmp_path / "key.age")
    assert keys(kept(source, project=tmp_path)) == (OLD, None)
    source["age"]["field"] = "apiKey"
    encrypt(json.dumps({"apiKey": OLD, "apiKeyNext": NEXT}), to=identity, path=tmp_path / "key.age")
    assert keys(kept(source, project=tmp_path)) == (OLD, NEXT)
    encrypt(json.dumps({"apiKey": NEXT}), to=identity, path=tmp_path / "key.age")
    assert keys(kept(source, project=tmp_path)) == (NEXT, None)


def test_a_file_that_age_cannot_open_is_said_with_its_reason(tmp_path: Path, identity: str) -> None:
    other = tmp_path / "other"
    subprocess.run(["age-keygen", "-o", other], check=True, capture_output=True)
    encrypt(OLD, to=identity, path=tmp_path / "key.age")
    for source, said in (
        ({"file": "key.age", "identityFile": str(other)}, "age ended with status 1: .*no identity matched"),
        ({"file": "none.age", "identityFile": str(other)}, "none.age is not in the project folder; write it"),
    ):
        with pytest.raises(KeySourceError, match=said):
            kept({"age": source}, project=tmp_path)


def sops(tmp_path: Path, content: dict[str, Any], *, to: str, name: str) -> None:
    """Encrypts as a user does, by the real program."""
    clear = tmp_path / f"clear-{name}"
    clear.write_text(json.dumps(content))
    as_yaml = ("--input-type", "json", "--output-type", "yaml")
    found = subprocess.run(
        [program("sops", package="sops"), "--encrypt", "--age", to, *as_yaml, clear],
        check=True,
        capture_output=True,
    )
    (tmp_path / name).write_bytes(found.stdout)
    clear.unlink()


def test_a_file_of_sops_rotates_by_its_fields(
    tmp_path: Path, identity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real SOPS with an age identity, a YAML file as teams keep one in their repository."""
    monkeypatch.setenv("SOPS_AGE_KEY_FILE", str(tmp_path / "identity"))
    source = {"sops": {"file": "live.yaml", "field": "ai.key", "nextField": "ai.next"}}
    for content, wanted in (
        ({"ai": {"key": OLD}, "other": FOREIGN}, (OLD, None)),
        ({"ai": {"key": OLD, "next": NEXT}}, (OLD, NEXT)),
        ({"ai": {"key": NEXT, "next": ""}}, (NEXT, None)),
    ):
        sops(tmp_path, content, to=identity, name="live.yaml")
        assert OLD not in (tmp_path / "live.yaml").read_text()
        assert keys(kept(source, project=tmp_path)) == wanted
    monkeypatch.delenv("SOPS_AGE_KEY_FILE")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(KeySourceError, match=r"sops ended with status 128: .*age"):
        kept(source, project=tmp_path)


def test_sops_that_is_not_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "live.yaml").write_text("sops: {}\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        KeySourceError, match=r"sops can't be started .*; install sops on the machine that runs Pulumi"
    ):
        kept({"sops": {"file": "live.yaml"}}, project=tmp_path)
