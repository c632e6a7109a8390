"""A copy of the parts of the checkout that a build reads, so that a test may change them."""

import os
import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VERSION: str = tomllib.loads((ROOT / "client/pyproject.toml").read_text())["project"]["version"]
_PARTS = ("client", "requirements", "tools/artefact")
BUILD_TIMEOUT_S = 300


@dataclass(frozen=True)
class Checkout:
    """A copied checkout with a cache of its own; downloaded wheels are shared with the user's."""

    root: Path

    @property
    def lock(self) -> Path:
        return self.root / "requirements" / "client.txt"

    @property
    def package(self) -> Path:
        return self.root / "client" / "src" / "ai_client"

    @property
    def cache(self) -> Path:
        return self.root / "cache" / "ai-client-fleet" / "artefacts"

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"XDG_CACHE_HOME": str(self.root / "cache"), "UV_CACHE_DIR": wheel_cache()}

    def command(self, *options: str) -> list[str]:
        return [str(self.root / "tools" / "artefact" / "build"), *options]

    def build(self, *options: str, umask: int = -1) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*options),
            check=False,
            capture_output=True,
            text=True,
            cwd="/",
            env=self.environment,
            umask=umask,
            timeout=BUILD_TIMEOUT_S,
        )


def wheel_cache() -> str:
    """Where uv keeps what it downloaded; found by uv itself, since the tests give it another cache folder."""
    uv = ROOT / ".venv" / "bin" / "uv"
    return subprocess.run([uv, "cache", "dir"], check=True, capture_output=True, text=True).stdout.strip()


def copy_checkout(source: Path, target: Path) -> Checkout:
    """Copies what a build reads from `source` to the new folder `target`; file times become today's."""
    for part in _PARTS:
        shutil.copytree(
            source / part,
            target / part,
            copy_function=shutil.copyfile,
            ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
        )
    for script in (target / "tools" / "artefact").iterdir():
        if not script.suffix:
            script.chmod(0o755)
    # Without its __init__.py it were a namespace package, and that of another checkout on the path came before it.
    for name in ("run", "__init__.py"):
        shutil.copy(source / "tools" / name, target / "tools" / name)
    (target / ".venv").symlink_to(ROOT / ".venv")
    return Checkout(target)
