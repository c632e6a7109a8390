"""The commands of the how-to pages for teams, run as a reader types them, in an empty clone."""

import re
from pathlib import Path

import pytest
import yaml

from policy.rules import RULES
from tests.docs.conftest import NewClone
from tests.docs.pages import blocks, text_of, walk
from tests.docs.reader import Reader, new_reader
from tests.tools.test_move_in import INI, VARIABLES

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.fixture
def reader(tmp_path: Path, new_clone: NewClone) -> Reader:
    """A new clone, and the playbooks that its owner ran by hand so far."""
    playbooks = tmp_path / "home" / "playbooks"
    playbooks.mkdir(parents=True)
    (playbooks / "production.ini").write_text(INI + VARIABLES)
    return new_reader(new_clone("production"), tmp_path / "home", AI_CLIENT_FLEET_STACK="live")


def test_a_new_stack_is_made_by_its_page(reader: Reader) -> None:
    """File, stack, key, preview: at the end the host key is all that `up` needs, and `up` refuses without it."""
    with walk("docs/how-to/new-stack.md") as page:
        make, begin, key, preview, up = (page.take() for _ in range(5))
    for command in (make, begin, key):
        reader.types(command)
    said = reader.types(preview)
    assert "no pinned host key for api-staging-01" in said
    assert "apiKey" not in said
    assert "no pinned host key for api-staging-01" in reader.types(up, expect=(1, 255))


def test_the_first_production_stack_is_made_by_its_page(reader: Reader) -> None:
    """As far as it goes without hosts: the preview looks at none, since these addresses are somebody's."""
    file = reader.clone.folder / "Pulumi.production.yaml"
    with walk("docs/how-to/first-production-stack.md") as page:
        begin, key, look, setup, up, verify = (page.take() for _ in range(6))
    said = reader.types(begin)
    assert "fleet:apiKey: no upstream key for" in said
    assert "7 hosts: 7 blocked" in said
    assert "Outputs:" not in said
    assert len(said[said.index("Previewing update") :].splitlines()) <= 40
    assert "no pinned host key for api-prod-01" in said
    content = yaml.safe_load(file.read_text())
    (example,) = map(yaml.safe_load, blocks("docs/how-to/first-production-stack.md", "yaml"))
    content["config"] |= {name: value for name, value in example.items() if name != "fleet:groups"}
    content["config"]["fleet:probe"] = False
    for name, group in example["fleet:groups"].items():
        hosts = content["config"]["fleet:groups"][name]["hosts"] | group.get("hosts", {})
        content["config"]["fleet:groups"][name] |= group | {"hosts": hosts}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    reader.types(setup)
    reader.types(key)
    said = reader.types(look, expect=(0, 1))
    assert "fleet:apiKey: no upstream key" not in said
    assert "no pinned host key for api-prod-01" in said
    assert "jump-prod-01, " not in said
    assert "host-keys-are-pinned: " in said
    assert "up still needs" in reader.types(up, expect=(1, 255))
    assert "run 'pulumi up' first" in reader.types(verify, expect=(0, 1, 4))


def test_an_inventory_is_moved_in_by_its_page(reader: Reader) -> None:
    """The playbooks' inventory becomes a stack whose preview lists its seven hosts."""
    with walk("docs/how-to/moving-in.md") as page:
        move, make, preview, inventory = (page.take() for _ in range(4))
    assert "Everything was carried over." in reader.types(move)
    reader.types(make)
    assert "claim-batch-worker-02" in reader.types(preview)
    # What Ansible sees after an `up`, which these hosts can't have: they are nobody's.
    assert "run 'pulumi up' first" in reader.types(inventory, expect=(0, 1, 4))


def test_the_policy_judges_by_its_page(reader: Reader) -> None:
    """The shipped production stack has no host keys yet: that, and nothing else, is what the rules find."""
    reader.types("tools/env pulumi stack init production")
    with walk("docs/how-to/policy.md") as page:
        setup, judge = (page.take() for _ in range(2))
    reader.types(setup)
    said = reader.types(judge, expect=(1,))
    found = [line for line in said.splitlines() if re.match(r"[a-z-]+: (fleet|claim)-", line)]
    assert found
    assert all(line.startswith("host-keys-are-pinned: ") for line in found)


def test_one_quota_is_declared_by_its_page(reader: Reader) -> None:
    """The stack takes the engine and its password; Ansible's groups by what hosts say need hosts that are up."""
    reader.types("tools/env pulumi stack init production")
    with walk("docs/how-to/coordination.md") as page:
        declare, budgets, group = (page.take() for _ in range(3))
    *settings, up = [line for line in declare.splitlines() if line]
    share, _ = [line for line in budgets.splitlines() if line]
    # What the page says that it needs.
    reader.types("tools/env pulumi config set --path account.rpm 4200 --stack production")
    for line in (*settings, share):
        reader.types(line)
    assert "up still needs" in reader.types(up, expect=(1, 255))
    content = (reader.clone.folder / "Pulumi.production.yaml").read_text()
    assert "endpoint: rediss://engine.internal:6379" in content
    assert "sharedBudgets: true" in content
    assert "secure:" in content
    assert "run 'pulumi up' first" in reader.types(group, expect=(0, 1, 4))


def test_the_supply_chain_is_examined_by_its_page(reader: Reader) -> None:
    """Build, bill of materials and licences succeed; the audit says what it knows, or that it knows nothing."""
    with walk("docs/how-to/supply-chain.md") as page:
        build, listed, written, audit, audit_alone, release, again, docs = (page.take() for _ in range(8))
    folder = next(line for line in reader.types(build).splitlines() if line.startswith("/"))
    assert (Path(folder) / "index.json").is_file()
    said = reader.types(listed)
    assert '"bomFormat": "CycloneDX"' in said
    assert "aiohttp" in said
    reader.types(written)
    assert "aiohttp" in (reader.clone.folder / "build" / "sbom.json").read_text()
    assert "audit: " in reader.types(audit, expect=(0, 2))
    assert "audit: " in reader.types(audit_alone, expect=(0, 1, 2))
    assert "-py3-none-any.whl" in reader.types(release)
    assert "index.json: OK" in reader.types(again)
    sums = [reader.clone.folder / folder / "SHA256SUMS" for folder in ("dist", "build/release")]
    assert sums[0].read_text() == sums[1].read_text()
    site = next(line for line in reader.types(docs).splitlines() if line.startswith("/"))
    assert (Path(site) / "index.html").is_file()


def test_the_targets_of_make_that_write_nothing_new_succeed(reader: Reader) -> None:
    """The list, the setting up where all is there, and the pages of the reference where they are current."""
    with walk("docs/reference/make.md") as page:
        said = "".join(reader.types(command.text) for command in page.rest())
    assert "new-stack" in said


def test_rules_of_the_policy_are_on_its_page() -> None:
    """The policy page names each rule."""
    assert all(f"`{rule.name}`" in text_of("docs/how-to/policy.md") for rule in RULES)
