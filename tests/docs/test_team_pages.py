"""The commands of the how-to pages for teams, run as a reader types them, in an empty clone."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from policy.rules import RULES
from tests.fleet.clones import Clone, clone
from tests.infra.stacks import KEY, PROJECT
from tests.tools.test_move_in import INI, VARIABLES

pytestmark = [pytest.mark.engine, pytest.mark.slow]

PAGES = ("new-stack", "moving-in", "policy", "supply-chain")

# No released Pulumi is at hand, and the engine that is starts no pack: tests/policy drives the pack instead.
NOT_HERE = ("pulumi preview --stack production --policy-pack policy",)


def page(name: str) -> str:
    return (PROJECT / "docs" / "how-to" / f"{name}.md").read_text(encoding="utf-8")


def commands(name: str) -> list[str]:
    """The lines of a page's shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", page(name), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line and line not in NOT_HERE]


@dataclass
class Reader:
    """Somebody with a clone and a home folder, who types what a page says."""

    clone: Clone
    home: Path

    def types(self, command: str, *, expect: tuple[int, ...] = (0,)) -> str:
        """Runs a command and answers what it printed; whatever asks for a key gets one."""
        done = subprocess.run(
            ["/bin/bash", "-o", "pipefail", "-c", command],
            cwd=self.clone.folder,
            env={
                **self.clone.environment(),
                "HOME": str(self.home),
                "PULUMI_HOME": str(self.home / ".pulumi"),
            },
            input=KEY,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode in expect, (
            f"{command}: {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        )
        assert KEY not in done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    """A new clone; caches of the machine are shared, so that nothing is built twice."""
    home = tmp_path / "home"
    (home / "playbooks").mkdir(parents=True)
    (home / "playbooks" / "production.ini").write_text(INI + VARIABLES)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    (home / ".cache").symlink_to(cache)
    return Reader(clone(tmp_path / "clone", state=tmp_path / "state", stack="production"), home)


def test_a_new_stack_is_made_by_its_page(reader: Reader) -> None:
    """File, stack, key, preview: at the end the host key is all that `up` needs."""
    said = [reader.types(command) for command in commands("new-stack")]
    assert len(said) == 4
    assert "no pinned host key for api-staging-01" in said[-1]
    assert "apiKey" not in said[-1]


def test_an_inventory_is_moved_in_by_its_page(reader: Reader) -> None:
    """The playbooks' inventory becomes a stack whose preview lists its seven hosts."""
    said = [reader.types(command) for command in commands("moving-in")]
    assert len(said) == 4
    assert "Everything was carried over." in said[0]
    assert "claim-batch-worker-02" in said[-1]


def test_the_policy_judges_by_its_page(reader: Reader) -> None:
    """The shipped production stack has no host keys yet: that, and nothing else, is what the rules find."""
    reader.types("tools/env pulumi stack init production")
    said = [reader.types(command, expect=(1,)) for command in commands("policy")]
    assert len(said) == 1
    found = [line for line in said[0].splitlines() if re.match(r"[a-z-]+: (fleet|claim)-", line)]
    assert found
    assert all(line.startswith("host-keys-are-pinned: ") for line in found)


def test_the_supply_chain_is_examined_by_its_page(reader: Reader) -> None:
    """Build, bill of materials and licences succeed; the audit says what it knows, or that it knows nothing."""
    listed = commands("supply-chain")
    assert listed == ["tools/artefact/build", "make sbom", "make licences", "make audit"]
    folder = next(line for line in reader.types(listed[0]).splitlines() if line.startswith("/"))
    assert (Path(folder) / "index.json").is_file()
    assert '"bomFormat": "CycloneDX"' in reader.types(listed[1])
    assert "aiohttp" in reader.types(listed[2])
    said = reader.types(listed[3], expect=(0, 2))
    assert "audit: " in said


def test_links_and_rules_of_the_pages_are_there() -> None:
    """Every page that is linked exists, and the policy page names each rule."""
    for name in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page(name)):
            assert (PROJECT / "docs" / "how-to" / target).is_file(), target
    assert all(f"`{rule.name}`" in page("policy") for rule in RULES)
