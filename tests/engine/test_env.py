"""tools/env gives a command the venv, the engine and a state folder, and keeps what the user set."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.engine.fake_programs import CHECKOUT, Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with an installed CLI and a Go that can build the stand-in."""
    return Machine(tmp_path).add_go().add_pulumi("v3.250.0")


def run(machine: Machine, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs tools/env from another folder than the checkout."""
    return subprocess.run(
        [CHECKOUT / "tools/env", *arguments],
        cwd=machine.home,
        env={**machine.environ, **more},
        capture_output=True,
        text=True,
        check=False,
    )


def seen(machine: Machine, *options: str, **more: str) -> dict[str, str]:
    """The environment that a command finds."""
    done = run(machine, *options, "env", "-0", **more)
    assert done.returncode == 0, done.stderr
    return dict(variable.split("=", 1) for variable in done.stdout.rstrip("\0").split("\0"))


def test_the_venv_comes_first_and_then_the_engine(machine: Machine) -> None:
    """The language host takes the first python3, so the venv must win over everything."""
    path = seen(machine)["PATH"].split(os.pathsep)
    assert path[:2] == [f"{CHECKOUT}/.venv/bin", str(machine.pulumi_folder)]


def test_state_lies_in_a_folder_that_only_its_owner_can_read(machine: Machine) -> None:
    """State holds secrets, if encrypted ones."""
    state = machine.folder / "state" / "ai-client-fleet"
    assert seen(machine)["PULUMI_BACKEND_URL"] == f"file://{state}"
    assert state.stat().st_mode & 0o777 == 0o700


def test_a_backend_that_is_set_stays(machine: Machine) -> None:
    """A user's own backend, passphrase and update check are theirs."""
    given = {
        "PULUMI_BACKEND_URL": "s3://bucket",
        "PULUMI_CONFIG_PASSPHRASE": "theirs",
        "PULUMI_SKIP_UPDATE_CHECK": "0",
    }
    assert given.items() <= seen(machine, **given).items()
    assert not (machine.folder / "state").exists()


def test_without_dev_neither_passphrase_nor_plugin_is_given(machine: Machine) -> None:
    """A deploy to other machines never finds the stand-in on PATH."""
    environ = seen(machine)
    assert "PULUMI_CONFIG_PASSPHRASE" not in environ
    assert "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION" not in environ
    assert not any(
        (Path(folder) / "pulumi-resource-command").exists() for folder in environ["PATH"].split(":")
    )


def test_dev_has_its_own_backend_and_passphrase_whatever_is_set(machine: Machine) -> None:
    """The dev stack never lands in a shared backend."""
    environ = seen(
        machine,
        "--dev",
        PULUMI_BACKEND_URL="s3://bucket",
        PULUMI_CONFIG_PASSPHRASE="theirs",
        PULUMI_CONFIG_PASSPHRASE_FILE="/none",
    )
    assert environ["PULUMI_BACKEND_URL"] == f"file://{machine.folder}/state/ai-client-fleet"
    assert environ["PULUMI_CONFIG_PASSPHRASE"] == "dev-stack-only"
    assert "PULUMI_CONFIG_PASSPHRASE_FILE" not in environ


def test_dev_with_the_stand_in_keeps_the_engine_from_looking_online(machine: Machine) -> None:
    """The stand-in is on PATH, behind the engine."""
    environ = seen(machine, "--dev")
    plugin_folder = Path(environ["PATH"].split(os.pathsep)[2])
    assert (plugin_folder / "pulumi-resource-command").is_file()
    assert environ["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] == "1"


def test_the_commands_exit_code_and_arguments_pass_through(machine: Machine) -> None:
    """Blanks and quotes too."""
    done = run(machine, "sh", "-c", 'printf "%s|" "$@"; exit 7', "sh", "a b", "it's", "")
    assert (done.returncode, done.stdout) == (7, "a b|it's||")


def test_without_a_command_the_usage_is_shown(machine: Machine) -> None:
    """Nothing is built for nothing."""
    done = run(machine)
    assert done.returncode == 2
    assert "tools/env [--dev] CMD" in done.stderr


def test_an_engine_that_cannot_be_had_stops_the_command(machine: Machine) -> None:
    """The build's own error is shown, and the command does not run with another engine."""
    (machine.pulumi_folder / "pulumi").unlink()
    (machine.go_folder / "answer").write_text("go1.19.0\nlinux\namd64\n")
    done = run(machine, "echo", "ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert "too old" in done.stderr


def test_a_login_of_pulumis_stays(machine: Machine) -> None:
    """Whoever ran `pulumi login` has a backend; a logout leaves the folder of this project's."""
    credentials = machine.home / ".pulumi" / "credentials.json"
    credentials.parent.mkdir(parents=True, exist_ok=True)
    credentials.write_text('{"current": "s3://team-state", "accessTokens": {}}')
    assert "PULUMI_BACKEND_URL" not in seen(machine)
    assert "PULUMI_BACKEND_URL" in seen(machine, "--dev")
    credentials.write_text('{"current": ""}')
    assert seen(machine)["PULUMI_BACKEND_URL"].startswith("file://")


def test_a_plugin_that_is_named_without_dev_is_not_passed_over_in_silence(machine: Machine) -> None:
    """Whoever names it believes that it serves."""
    told = run(machine, "true", PULUMI_COMMAND_PLUGIN="/somewhere/pulumi-resource-command")
    assert "PULUMI_COMMAND_PLUGIN serves 'tools/env --dev' alone" in told.stderr


@pytest.mark.parametrize("locale", ["C", "xx_YY.UTF-8", "de_DE.ISO-8859-1"])
def test_a_locale_that_ansible_refuses_is_replaced(machine: Machine, locale: str) -> None:
    """One that is no UTF-8, or not installed: day-two commands work in whatever shell they are typed."""
    given = {"LC_ALL": locale, "LC_CTYPE": locale, "LANG": locale}
    assert seen(machine, **given)["LC_ALL"] == "C.UTF-8"


def test_a_plugin_that_the_engine_has_to_download_is_told_with_the_way_out(machine: Machine) -> None:
    """Before the engine's words, whose remedy is the same download; not where it is there, nor for other commands."""
    told = "docs/faq.md, 'The plugin pulumi-resource-command cannot be downloaded'"
    assert told in run(machine, "pulumi", "preview").stderr
    assert told not in run(machine, "pulumi", "stack", "ls").stderr
    assert told not in run(machine, "--dev", "pulumi", "preview").stderr
    assert told.split("'")[1] in (CHECKOUT / "docs/faq.md").read_text().replace("`", "")
    folder = machine.home / ".pulumi/plugins/resource-command-v1.2.1"
    folder.mkdir(parents=True)
    (folder / "pulumi-resource-command").write_text("#!/bin/sh\n")
    (folder / "pulumi-resource-command").chmod(0o755)
    assert told not in run(machine, "pulumi", "preview").stderr
