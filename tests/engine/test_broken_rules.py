"""Each rule of the plugin has a case that fails where the rule is broken in the stand-in.

A rule is broken by one change of the stand-in's source, given to Go as an overlay; the case named beside it must then
differ from the record of the real plugin.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engine.conftest import CHECKOUT, Engine
from tests.engine.observed import CASES, PARALLEL_CASES, digest_of, facts, keep, kept_at, run_case, take
from tests.engine.recorder import Record

pytestmark = [pytest.mark.engine, pytest.mark.slow]

SOURCES = CHECKOUT / "tools/engine/command"


@dataclass(frozen=True)
class Break:
    """One broken rule: the source, what is replaced in it by what, and the case that must fail."""

    case: str
    source: str
    old: str
    new: str


BREAKS = {
    # That a change of triggers replaces is asked for by the Python SDK too, so no case can tell; diff_test.go does.
    "a changed trigger is no change": Break(
        "trigger_change_replaces_never_updates", "check.go", '"triggers":', '"-":'
    ),
    "a removed input is no change": Break("logging_removed", "check.go", '"logging":', '"-":'),
    "a changed delete is no change": Break("only_delete_text_changed", "check.go", '"delete":', '"-":'),
    "update is never run": Break(
        "environment_change_runs_update_if_given",
        "provider.go",
        'text(outputs["update"])',
        'text(outputs["create"])',
    ),
    "create does not stand in for update": Break(
        "environment_change_reruns_create", "provider.go", 'command = text(outputs["create"])', 'command = ""'
    ),
    "delete is never run": Break(
        "no_create_only_delete", "provider.go", 'command := text(olds["delete"])', 'command := ""'
    ),
    "delete forgets its environment": Break(
        "removed_runs_delete_with_last_environment",
        "provider.go",
        "run(ctx, command, olds,",
        "run(ctx, command, nil,",
    ),
    "delete forgets the previous output": Break(
        "delete_sees_previous_stdout",
        "provider.go",
        "run(ctx, command, olds, resultIn(olds),",
        "run(ctx, command, olds, result{},",
    ),
    "a failed delete passes": Break(
        "failed_delete_keeps_the_resource",
        "provider.go",
        "return &emptypb.Empty{}, err\n}\n\n// Read",
        "_ = err\n\treturn &emptypb.Empty{}, nil\n}\n\n// Read",
    ),
    # That secret inputs stay secret in the outputs is seen to by the engine too; only this side can be broken.
    "stdout is made secret": Break(
        "secret_stdin",
        "run.go",
        "outputValue(r.stdout)",
        'special(secretSignature, properties{"value": outputValue(r.stdout)})',
    ),
    "update forgets the previous output": Break(
        "update_sees_previous_stdout", "provider.go", "resultIn(request.Olds.GetFields())", "result{}"
    ),
    "the previous output cannot be switched off": Break(
        "previous_output_off", "run.go", "!wanted.GetBoolValue()", "false"
    ),
    "stdin is dropped": Break("stdin_reaches_the_command", "run.go", 'stdin != ""', 'stdin == "-"'),
    "dir is dropped": Break("dir_is_the_working_directory", "run.go", 'text(inputs["dir"])', '""'),
    "interpreter is dropped": Break("interpreter_python", "run.go", "len(argv) == 0", "true"),
    "the environment is not inherited": Break(
        "environment_inherits", "run.go", "os.Environ(), ", "os.Environ()[:0], "
    ),
    "the outer environment wins": Break(
        "environment_overrides_outer",
        "run.go",
        "append(os.Environ(), additionalEnvironment(inputs, before)...)",
        "append(additionalEnvironment(inputs, before), os.Environ()...)",
    ),
    "stdout is always shown": Break(
        "logging_stderr", "run.go", 'showsStdout: level == "stdout"', "showsStdout: true"
    ),
    "stderr is always shown": Break(
        "logging_stdout", "run.go", 'showsStderr: level == "stderr"', "showsStderr: true"
    ),
    "all newlines at the end are stripped": Break(
        "trailing_newline_is_stripped",
        "run.go",
        'TrimSuffix(s.kept.String(), "\\n")',
        "TrimSpace(s.kept.String())",
    ),
    "an error has no output": Break(
        "failed_create_with_logging_none", "run.go", "command, both.text())", 'command, "")'
    ),
    "a failed command passes": Break(
        "failed_update_keeps_old_inputs",
        "run.go",
        "if err != nil {\n\t\treturn result{}, fmt.Errorf",
        "if err != nil && ctx == nil {\n\t\treturn result{}, fmt.Errorf",
    ),
    "children are not waited for": Break(
        "background_child_holds_stdout",
        "run.go",
        "level := logging(inputs)",
        "process.WaitDelay = 1\n\tlevel := logging(inputs)",
    ),
    "stderr is not kept": Break(
        "stderr_and_stdout_are_apart", "run.go", "outputValue(r.stderr)", 'outputValue("")'
    ),
    "bytes are mended": Break(
        "invalid_utf8_output", "values.go", "utf8.ValidString(output)", "utf8.ValidString(output[:0])"
    ),
    "excludes include": Break("asset_paths", "files.go", "return !one.isExclude", "return true"),
    "archives are dropped": Break("archive_paths", "files.go", 'outputs["archive"] =', "_ ="),
}


def build_broken(broken: Break, *, folder: Path) -> Path:
    """A plugin with the rule broken."""
    source = SOURCES / broken.source
    text = source.read_text()
    assert broken.old in text, f"{broken.source} no longer holds what this break replaces"
    folder.mkdir()
    changed, overlay = folder / source.name, folder / "overlay.json"
    changed.write_text(text.replace(broken.old, broken.new))
    overlay.write_text(json.dumps({"Replace": {str(source): str(changed)}}))
    go = shutil.which("go", path=f"{os.environ['PATH']}:/usr/local/go/bin")
    assert go is not None
    command = [go, "build", "-overlay", overlay, "-o", folder / "pulumi-resource-command", "."]
    done = subprocess.run(command, cwd=SOURCES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def observe(broken: Break, *, engine: Engine, empty_stack: Path, folder: Path) -> list[Record]:
    """What the case shows of the broken plugin, run now or kept from before."""
    sources = sorted(path for path in SOURCES.iterdir() if not path.name.endswith("_test.go"))
    kept = kept_at(digest_of(engine, *sources, more=repr(broken)), case=broken.case)
    observed = take(kept)
    if observed is None:
        plugin = build_broken(broken, folder=folder)
        observed = run_case(
            broken.case, path=f"{plugin}:{engine.path}", empty_stack=empty_stack, folder=folder / "case"
        )
        if facts(observed) != facts(CASES[broken.case]):
            keep(kept, observed)
    return observed


@pytest.fixture(scope="session")
def observed_breaks(
    stand_in: Engine, empty_stack: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Future[list[Record]]]]:
    """All breaks, a few at a time."""
    folder = tmp_path_factory.mktemp("breaks")
    with ThreadPoolExecutor(PARALLEL_CASES) as pool:
        yield {
            rule: pool.submit(
                observe,
                broken,
                engine=stand_in,
                empty_stack=empty_stack,
                folder=folder / rule.replace(" ", "-"),
            )
            for rule, broken in BREAKS.items()
        }
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("rule", BREAKS)
def test_a_broken_rule_fails_its_case(rule: str, observed_breaks: Mapping[str, Future[list[Record]]]) -> None:
    """The engine ran the case to its end, and what came of it is not what the real plugin did."""
    observed = observed_breaks[rule].result()
    assert not any("timed_out" in record for record in observed)
    assert facts(observed) != facts(CASES[BREAKS[rule].case])
