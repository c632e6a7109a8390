"""Runs the jobs of a workflow here: its `run` steps as they stand, its actions as far as they pass files on."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.infra.stacks import PROJECT

FOLDER = PROJECT / "docs" / "ci" / "github"
NAMES = sorted(path.name for path in FOLDER.glob("*.yml"))
BASH = ["bash", "--noprofile", "--norc", "-eo", "pipefail"]

_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
_ALWAYS = {"always()", "!cancelled()"}


def load(name: str) -> dict[str, Any]:
    """A workflow. YAML 1.1 reads its `on` as a truth value."""
    content: dict[Any, Any] = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    content["on"] = content.pop(True)
    return content


@dataclass
class Job:
    """How a job ended.

    Attributes:
        failed: names of the steps that failed, in their order.
        log: everything that its steps printed.
        summary: what it wrote for the run's page.
        outputs: as later jobs get them.
    """

    failed: list[str] = field(default_factory=list)
    log: str = ""
    summary: str = ""
    outputs: dict[str, str] = field(default_factory=dict)


@dataclass
class Runner:
    """A machine that runs jobs in a checkout.

    Attributes:
        checkout: folder that steps run in.
        temp: folder of the run: its temporary files and artefacts.
        contexts: `vars`, `secrets`, `github`, `inputs`.
        environ: what the machine itself has in its environment.
    """

    checkout: Path
    temp: Path
    contexts: dict[str, Any]
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def run(self, workflow: Mapping[str, Any], name: str, *, needs: Mapping[str, Job] | None = None) -> Job:
        """Runs one job of a workflow, as if those that it needs had ended as given."""
        declared = workflow["jobs"][name]
        done = Job()
        own = {needed: {"outputs": job.outputs} for needed, job in (needs or {}).items()}
        contexts: dict[str, Any] = {
            **self.contexts,
            "needs": own,
            "steps": {},
            "runner": {"temp": str(self._temp(name))},
        }
        environ = self._environ(workflow, declared, contexts)
        for number, step in enumerate(declared["steps"]):
            if not self._is_wanted(step, contexts, has_failed=bool(done.failed)):
                continue
            if "uses" in step:
                self._use(step, contexts)
                continue
            status = self._step(number, step, contexts, environ, done)
            if status != 0:
                done.failed.append(step["name"])
        done.outputs = {key: resolve(text, contexts) for key, text in (declared.get("outputs") or {}).items()}
        return done

    def _temp(self, job: str) -> Path:
        folder = self.temp / "temp" / job
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _environ(
        self, workflow: Mapping[str, Any], job: Mapping[str, Any], contexts: Mapping[str, Any]
    ) -> dict[str, str]:
        declared = {**(workflow.get("env") or {}), **(job.get("env") or {})}
        own = {name: resolve(text, contexts) for name, text in declared.items()}
        return {**self.environ, **own, "RUNNER_TEMP": contexts["runner"]["temp"]}

    def _is_wanted(self, step: Mapping[str, Any], contexts: Mapping[str, Any], *, has_failed: bool) -> bool:
        condition = str(step.get("if", ""))
        if condition in _ALWAYS:
            return True
        return not has_failed and (not condition or holds(condition, contexts))

    def _step(
        self,
        number: int,
        step: Mapping[str, Any],
        contexts: dict[str, Any],
        environ: dict[str, str],
        done: Job,
    ) -> int:
        files = {
            name: self.temp / f"{name}-{number}"
            for name in ("GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_STEP_SUMMARY")
        }
        for file in files.values():
            file.write_text("")
        own = {name: resolve(str(text), contexts) for name, text in (step.get("env") or {}).items()}
        script = self.temp / "step.sh"
        script.write_text(step["run"])
        ran = subprocess.run(
            [*BASH, str(script)],
            cwd=self.checkout,
            env={**environ, **own, **{name: str(file) for name, file in files.items()}},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=300,
            check=False,
        )
        done.log += ran.stdout
        done.summary += files["GITHUB_STEP_SUMMARY"].read_text()
        environ |= _assignments(files["GITHUB_ENV"])
        if "id" in step:
            contexts["steps"][step["id"]] = {"outputs": _assignments(files["GITHUB_OUTPUT"])}
        return ran.returncode

    def _use(self, step: Mapping[str, Any], contexts: Mapping[str, Any]) -> None:
        action = step["uses"].split("@")[0]
        options = {key: resolve(str(text), contexts) for key, text in (step.get("with") or {}).items()}
        if action == "actions/upload-artifact":
            shutil.copytree(options["path"], self.artefact(options["name"]), dirs_exist_ok=True)
        elif action == "actions/download-artifact":
            shutil.copytree(self.artefact(options["name"]), options["path"], dirs_exist_ok=True)
        else:
            assert action in {"actions/checkout", "pulumi/actions"}, f"{action} is not known here"

    def artefact(self, name: str) -> Path:
        """Folder of what a job kept."""
        return self.temp / "artefacts" / name


def _assignments(file: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in file.read_text().splitlines())


def resolve(text: str, contexts: Mapping[str, Any]) -> str:
    """A text with its expressions replaced."""
    return _EXPRESSION.sub(lambda match: _value(match[1], contexts), str(text))


def holds(condition: str, contexts: Mapping[str, Any]) -> bool:
    """Whether a comparison of two values holds: the only kind of condition that is used."""
    left, operator, right = re.fullmatch(r"(\S+) (==|!=) (\S+)", condition).groups()  # type: ignore[union-attr]
    return (_value(left, contexts) == _value(right, contexts)) == (operator == "==")


def _value(expression: str, contexts: Mapping[str, Any]) -> str:
    for part in expression.split("||"):
        term = part.strip()
        value: Any = term[1:-1] if term.startswith("'") else _lookup(term, contexts)
        if value:
            return str(value)
    return ""


def _lookup(path: str, contexts: Mapping[str, Any]) -> Any:
    value: Any = contexts
    for name in path.split("."):
        assert name in value or path.split(".", maxsplit=1)[0] in {"vars", "secrets"}, f"{path} is not given"
        value = value.get(name, "")
    return value
