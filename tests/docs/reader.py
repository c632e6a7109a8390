"""Somebody who types what a page says."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.docs.pages import Command
from tests.fleet.clones import Clone
from tests.infra.stacks import KEY, PROJECT


@dataclass
class Reader:
    """A shell in a clone, whose owner has a home folder and says yes where Pulumi asks.

    Attributes:
        clone: where.
        variables: the shell's variables, which lines of a page may set.
        names: names that the pages give to things, and what these are called here.
        key: what is typed where a key is asked for.
    """

    clone: Clone
    variables: dict[str, str]
    names: Mapping[str, str] = field(default_factory=dict)
    key: str = KEY

    def types(self, text: str, *, expect: tuple[int, ...] = (0,)) -> str:
        """Types commands in the clone, each of which must end as expected; answers what they printed."""
        return "".join(self._line(line, expect) for line in Command(self._here(text), on_host=False).lines())

    def types_on(self, host: str, text: str, *, expect: int = 0) -> str:
        """Types commands on a host, as its login."""
        lines = Command(self._here(text), on_host=True).lines()
        return "".join(self.clone.ssh(host, line, expect=expect).output for line in lines)

    def _here(self, text: str) -> str:
        for name, own in self.names.items():
            text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", own, text)
        return text

    def _line(self, line: str, expect: tuple[int, ...]) -> str:
        saved = self.clone.folder.parent / "variables"
        done = subprocess.run(
            ["/bin/bash", "-o", "pipefail", "-c", f"set -ea\n{line}\nenv -0 >{shlex.quote(str(saved))}"],
            cwd=self.clone.folder,
            env=self.variables,
            input=self.key,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode in expect, f"{line}: {done.returncode}\n{said[-5000:]}"
        assert self.key not in said
        self.clone.outputs.append(said)
        if done.returncode == 0:
            self.variables = dict(entry.split("=", 1) for entry in saved.read_text().split("\0") if entry)
        return said


def own_path() -> str:
    """PATH as a user has it: without what this checkout, its engine and its caches put there for the tests.

    The command plugin stays: Pulumi downloads it, from a site that tests can't ask.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    ours = (str(PROJECT), str(Path(sys.prefix)), str(cache / "ai-client-fleet"))
    return os.pathsep.join(
        part
        for part in os.environ["PATH"].split(os.pathsep)
        if not part.startswith(ours) or (Path(part) / "pulumi-resource-command").exists()
    )


def new_reader(clone: Clone, home: Path, **settings: str) -> Reader:
    """A reader with a home of their own; caches of the machine are shared, so that nothing is built twice."""
    home.mkdir(exist_ok=True)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    if not (home / ".cache").exists():
        (home / ".cache").symlink_to(cache)
    variables = {
        **clone.environment(),
        "PATH": f"{clone.folder}/.venv/bin:{own_path()}",
        "HOME": str(home),
        "PULUMI_HOME": str(home / ".pulumi"),
        "PULUMI_SKIP_CONFIRMATIONS": "true",
        **settings,
    }
    return Reader(clone, variables)
