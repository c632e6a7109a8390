"""The fleet as a part of another Pulumi program: `docs/examples/existing-program/README.md`."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pulumi
import pytest

from infra.component import Fleet, FleetArgs
from tests.infra.stacks import HOST_KEY, KEY, PROJECT
from tests.program.stand import Declared, run

EXAMPLE = PROJECT / "docs" / "examples" / "existing-program"


def config() -> dict[str, Any]:
    hosts = {"web-1": {"address": "10.0.0.1", "hostKeys": [HOST_KEY]}}
    return {"environment": "production", "apiKey": KEY, "probe": False, "groups": {"web": {"hosts": hosts}}}


def declared(folder: str, config: dict[str, Any]) -> Declared:
    """What a program declares that holds a fleet."""

    def program() -> None:
        fleet = Fleet("fleet", FleetArgs(folder=folder))
        pulumi.export("digest", fleet.plan_digest)
        pulumi.export("inventory", fleet.inventory)

    return run(config, name="live", preview=False, program=program)


def test_its_resources_are_below_the_component_and_run_in_its_folder() -> None:
    """Commands start in this project's folder, wherever the other program lies."""
    made = declared("ai-client-fleet", config())
    below = "fleet:index:Fleet$fleet:index:Deployment$command:local:Command"
    assert {urn.split("::", 2)[2] for urn in made.urns} == {
        "fleet:index:Fleet::fleet",
        "fleet:index:Fleet$fleet:index:Deployment::deployment",
        f"{below}::claim-web-1",
        f"{below}::web-1",
    }
    assert {inputs["dir"] for inputs in made.commands.values()} == {"ai-client-fleet"}
    assert list(made.outputs["inventory"]["all"]["children"]["web"]["hosts"]) == ["web-1"]
    assert len(made.outputs["digest"]) == 16


@pytest.mark.parametrize("folder", ["", "/somewhere/ai-client-fleet"])
def test_a_folder_that_fits_one_machine_alone_is_refused(folder: str) -> None:
    """It would be in the state."""
    with pytest.raises(pulumi.RunError, match=r"FleetArgs\.folder: is not a path below"):
        declared(folder, config())


def test_what_is_wrong_is_said_without_a_traceback() -> None:
    """As in this project's own program."""
    with pytest.raises(
        pulumi.RunError, match=r"^fleet:maxRemoval: unknown key; did you mean 'maxRemovals'\?$"
    ):
        declared("fleet", config() | {"maxRemoval": 3})


@pytest.mark.engine
def test_the_example_previews_with_the_real_engine(tmp_path: Path) -> None:
    """As its page says: a checkout below the program's folder, whose environment it runs in."""
    folder = tmp_path / "shop"
    shutil.copytree(EXAMPLE, folder)
    (folder / "ai-client-fleet").symlink_to(PROJECT)
    (tmp_path / "state").mkdir()
    environment = {
        **os.environ,
        "PULUMI_BACKEND_URL": f"file://{tmp_path / 'state'}",
        "PULUMI_CONFIG_PASSPHRASE": "tests-only",
        "PULUMI_HOME": str(tmp_path / "home"),
    }

    def pulumi_cli(*words: str, stdin: str = "") -> str:
        argv = ["pulumi", *words, "--stack", "live", "--non-interactive"]
        done = subprocess.run(
            argv,
            cwd=folder,
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    pulumi_cli("stack", "init")
    pulumi_cli("config", "set", "--secret", "fleet:apiKey", stdin=KEY)
    shown = json.loads(pulumi_cli("preview", "--json"))
    steps = {step["urn"].rsplit("::", 1)[1]: step for step in shown["steps"]}
    assert {"fleet", "deployment", "claim-web-1", "web-1"} <= set(steps)
    assert steps["web-1"]["newState"]["inputs"]["dir"] == "ai-client-fleet"
    assert KEY not in json.dumps(shown)
