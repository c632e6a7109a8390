import json
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fleet.clones import Clone, clone
from tests.infra.stacks import PROJECT, shipped

STACK = "citest"
LINK = "198.18.60.0/30"


@dataclass
class Fleet:
    """A stack on real hosts, and the key that was put into it to look for leaks.

    Attributes:
        clone: the checkout that made the stack.
        key: its upstream key.
        work: folder that everything of it lies in.
    """

    clone: Clone
    key: str
    work: Path

    @property
    def local(self) -> Path:
        """What the machine keeps of the stack's hosts."""
        return Path("/var/lib/ai-client-fleet/local") / self.clone.stack

    def root_of(self, host: str) -> Path:
        """Root folder of a host's file system."""
        return self.local / "hosts" / host / "root"


def hosts_tool(*words: str, order: dict[str, object]) -> dict[str, object]:
    """Asks the tool that makes local hosts."""
    argv = [sys.executable, "-m", "tools.hosts", *words]
    done = subprocess.run(
        argv, cwd=PROJECT, input=json.dumps(order), capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def dev_config() -> dict[str, object]:
    """The dev stack's configuration, on a link of the tests' own."""
    config = shipped("dev")
    config["local"]["link"] = LINK
    config["groups"]["ai_api_clients"]["hosts"]["api-dev-02"]["suite"] = "trixie"
    config["maxRemovals"] = 3
    return config


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A stack declared and not yet up; whatever tests made of it is ended with the session."""
    work = tmp_path_factory.mktemp("fleet")
    checkout = clone(work / "first", state=work / "state", stack=STACK)
    key = f"hs_test_canary_{secrets.token_hex(12)}"
    hosts_tool("purge", order={"fleet": STACK})
    try:
        checkout.pulumi("stack", "init", STACK)
        checkout.configure(dev_config())
        checkout.pulumi("config", "set", "--secret", "apiKey", "--stack", STACK, stdin=key)
        yield Fleet(checkout, key, work)
    finally:
        hosts_tool("purge", order={"fleet": STACK})
        shutil.rmtree(work, ignore_errors=True)
