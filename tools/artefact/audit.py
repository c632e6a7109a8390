"""Looks up every package of the locks in a database of known vulnerabilities (OSV), by pip-audit.

Exit code 0: each was looked up and none is known to be vulnerable. 1: at least one is. 2: the database could not be
reached or not every package was looked up, so nothing can be said.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tools.artefact.build import ROOT
from tools.artefact.errors import ArtefactError
from tools.artefact.lockfile import normalized, read_pins

CLEAN, VULNERABLE, UNKNOWN = 0, 1, 2
_TIMEOUT_S = 900
_CONNECT_TIMEOUT_S = 15
# How the failures of a connection, or of a server that answers nonsense, are named at the end of a traceback.
_UNREACHABLE = (
    *("requests.exceptions.", "urllib3.exceptions.", "pip_audit._service."),
    "ERROR:pip_audit._cli:Could not connect",
)

# Which locks name a package, by (name, version).
Packages = dict[tuple[str, str], list[str]]


@dataclass(frozen=True)
class Finding:
    """One vulnerability of one locked package."""

    name: str
    version: str
    identifier: str
    fixed_in: tuple[str, ...]
    locks: tuple[str, ...]

    def __str__(self) -> str:
        remedy = f"fixed in {', '.join(self.fixed_in)}" if self.fixed_in else "no fixed version is known"
        return f"{self.name} {self.version}: {self.identifier}, {remedy} (in {', '.join(self.locks)})"


def packages(locks: Iterable[Path]) -> Packages:
    """Every package of the locks, whatever its marker: some host or machine installs it."""
    found: Packages = {}
    for lock in locks:
        for pin in read_pins(lock.read_text(encoding="utf-8")):
            found.setdefault((pin.name, pin.version), []).append(lock.name)
    return found


def requirement_files(asked: Iterable[tuple[str, str]]) -> list[str]:
    """Contents of requirement files, one for each run: pip-audit refuses two versions of a package at once."""
    files: list[dict[str, str]] = []
    for name, version in sorted(asked):
        free = next((file for file in files if name not in file), None)
        if free is None:
            files.append(free := {})
        free[name] = version
    return ["".join(f"{name}=={version}\n" for name, version in file.items()) for file in files]


def findings(report: dict[str, Any], *, asked: Packages) -> list[Finding]:
    """The vulnerabilities in pip-audit's JSON report."""
    return [
        Finding(
            name=entry["name"],
            version=entry["version"],
            identifier=" ".join([vulnerability["id"], *vulnerability["aliases"]]),
            fixed_in=tuple(vulnerability["fix_versions"]),
            locks=tuple(asked[normalized(entry["name"]), entry["version"]]),
        )
        for entry in report["dependencies"]
        for vulnerability in entry.get("vulns", [])
    ]


def not_looked_up(report: dict[str, Any], *, asked: Packages) -> list[str]:
    """The packages that were asked for and on which the report is silent."""
    answered = {
        (normalized(entry["name"]), entry["version"]) for entry in report["dependencies"] if "vulns" in entry
    }
    return [f"{name} {version}" for name, version in sorted(asked.keys() - answered)]


def _auditor() -> Path:
    """The environment of pip-audit, installed where it is missing; an ArtefactError where it can't be."""
    done = subprocess.run([ROOT / "tools/venv", "audit"], check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise ArtefactError("pip-audit could not be installed, as said above")
    return Path(done.stdout.strip())


def look_up(asked: Packages, *, auditor: Path, database: str | None) -> dict[str, Any]:
    """pip-audit's report; an ArtefactError where it made none."""
    contents = requirement_files(asked)
    reports = [_audit_one(content, auditor=auditor, database=database) for content in contents]
    return {"dependencies": [entry for report in reports for entry in report["dependencies"]]}


def _audit_one(content: str, *, auditor: Path, database: str | None) -> dict[str, Any]:
    with TemporaryDirectory(prefix="audit-") as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(content, encoding="utf-8")
        command = [
            *(str(auditor / "bin" / "python"), "-m", "pip_audit", "--disable-pip", "--no-deps"),
            *("--format", "json", "--progress-spinner", "off", "--timeout", str(_CONNECT_TIMEOUT_S)),
            # Answers kept from an earlier run would hide that the database is away.
            *("--vulnerability-service", "osv", "--cache-dir", f"{folder}/cache"),
            *(("--osv-url", database) if database else ()),
            *("--requirement", str(requirements)),
        ]
        try:
            result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise ArtefactError(f"{_unreachable(database)}: no end within {_TIMEOUT_S} s") from error
    try:
        report: dict[str, Any] = json.loads(result.stdout)
    except ValueError as error:
        raise ArtefactError(_failure(result.stderr, database=database)) from error
    return report


def _failure(stderr: str, *, database: str | None) -> str:
    last = stderr.strip().rpartition("\n")[2] or "pip-audit said nothing"
    if last.startswith(_UNREACHABLE):
        return f"{_unreachable(database)}: {last}"
    return f"pip-audit failed: {last}"


def _unreachable(database: str | None) -> str:
    return f"the vulnerability database {database or 'OSV'} can't be reached"


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/audit", description=__doc__)
    parser.add_argument("locks", type=Path, nargs="*", help="locks to look up (default: requirements/*.txt)")
    parser.add_argument(
        "--database", metavar="URL", help="query address of another database that speaks OSV's API"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    options = _options(argv)
    locks = options.locks or sorted((ROOT / "requirements").glob("*.txt"))
    try:
        asked = packages(locks)
        report = look_up(asked, auditor=_auditor(), database=options.database)
    except (ArtefactError, OSError) as error:
        print(f"audit: {error}", file=sys.stderr)
        print(
            "audit: nothing was looked up; whether a locked package is vulnerable is unknown", file=sys.stderr
        )
        return UNKNOWN
    return _tell(findings(report, asked=asked), silent=not_looked_up(report, asked=asked), asked=asked)


def _tell(found: list[Finding], *, silent: list[str], asked: Packages) -> int:
    for finding in found:
        print(finding)
    for package in silent:
        print(f"audit: {package} was not looked up; whether it is vulnerable is unknown", file=sys.stderr)
    if found:
        print(
            f"audit: {len(found)} known vulnerabilities; raise the versions, then run tools/lock",
            file=sys.stderr,
        )
        return VULNERABLE
    if silent or not asked:
        return UNKNOWN
    print(f"audit: {len(asked)} packages looked up, none is known to be vulnerable", file=sys.stderr)
    return CLEAN


if __name__ == "__main__":
    sys.exit(main())
