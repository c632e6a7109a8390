"""What holds for every command, found from the parser itself: help, mistakes, pipes, Ctrl-C, no terminal."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ai_client.cli.arguments import build
from tests.client.cli.commands import ALL, WHOLE, environment, run, start, title

pytestmark = pytest.mark.slow

each = pytest.mark.parametrize("path", ALL, ids=title)
each_whole = pytest.mark.parametrize("path", WHOLE, ids=title)
typed = [
    (path, action)
    for path, parser in ALL.items()
    for action in parser._actions
    if action.option_strings and action.type not in (None, str, Path)
]

INTERRUPTED = """
import importlib, sys
def interrupt(options):
    print("a line")
    raise KeyboardInterrupt
importlib.import_module("ai_client.cli." + sys.argv[1]).run = interrupt
from ai_client.cli import main
sys.exit(main(sys.argv[2:]))
"""


def test_every_command_that_can_be_run_is_held_to_the_rules() -> None:
    """Commands that only hold others, such as `batch`, can't be run."""
    holders = {path[:-1] for path in ALL if path} - {()}
    assert set(WHOLE) == set(ALL) - holders


@each
def test_help_fits_80_columns_and_describes_every_option(path: tuple[str, ...], tmp_path: Path) -> None:
    """Exit code 0, nothing on standard error, and no option without a word about it."""
    done = run(*path, "--help", folder=tmp_path, COLUMNS="80")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {' '.join(('ai-client', *path))} [-h]")
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []
    told = [action for action in ALL[path]._actions if not isinstance(action, argparse._SubParsersAction)]
    assert [action.dest for action in told if not action.help] == []


@each
def test_a_reader_that_leaves_early_is_no_error(path: tuple[str, ...], tmp_path: Path) -> None:
    """`ai-client … | head`: the reader is gone before the first line."""
    reader, writer = os.pipe()
    os.close(reader)
    with start(*path, "--help", folder=tmp_path, stdout=writer) as process:
        os.close(writer)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (141, "")


@each
def test_a_full_disk_is_told(path: tuple[str, ...], tmp_path: Path) -> None:
    """`ai-client … >FILE`."""
    with Path("/dev/full").open("w") as full, start(*path, "--help", folder=tmp_path, stdout=full) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == "the output can't be written: No space left on device; free space or name another place\n"


@each
def test_closed_streams_are_no_error(path: tuple[str, ...], tmp_path: Path) -> None:
    """As `cron` and some supervisors start programs: with none of the three."""
    command = [sys.executable, "-m", "ai_client.cli", *path, "--help"]
    shell = ["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *command]
    done = subprocess.run(shell, cwd=tmp_path, env=environment(tmp_path), timeout=60, check=False)
    assert done.returncode == 0


@each
def test_an_unknown_option_is_named_with_the_nearest(path: tuple[str, ...], tmp_path: Path) -> None:
    """Exit code 2; a line for each mistake, and where the help is."""
    done = run(*path, *WHOLE.get(path, ()), "--hlep", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--hlep: there is no such option; did you mean `--help`?" in done.stderr or path == ("batch",)
    assert done.stderr.endswith(f"Try `{' '.join(('ai-client', *path))} --help`.\n")
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize("words", [("-config", "x", "serve"), ("serve", "-config", "x")])
def test_a_long_option_behind_one_hyphen_is_named_and_not_its_value(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Go's programs write them so; https://github.com/BerriAI/litellm/issues/21278 was told of the value alone."""
    with pytest.raises(SystemExit) as ended:
        build().parse_args(words)
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0].endswith("-config: there is no such option; did you mean `--config`?")
    assert len(said) == 2


@pytest.mark.parametrize(("path", "action"), typed, ids=[f"{title(p)}-{a.dest}" for p, a in typed])
@pytest.mark.parametrize("value", ["nonsense", "nan", "-1e300", ""])
def test_a_value_of_the_wrong_kind_is_quoted(
    path: tuple[str, ...], action: argparse.Action, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what to write instead, and never a traceback or the name of a function."""
    option = action.option_strings[-1]
    with pytest.raises(SystemExit) as ended:
        build().parse_args([*path, *WHOLE[path], f"{option}={value}"])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert f"{'/'.join(action.option_strings)}: " in said
    assert repr(value) in said
    assert "invalid" not in said or action.type is int


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """Not one a run."""
    done = run("usage", "--by", "foo,bar", "--days", "0", "--sinse", "x", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "ai-client usage: --by: can't group by 'foo', 'bar'; choose from day, month, tenant, model, tag:NAME",
        "ai-client usage: --days: '0': write a whole number from 1 to 3660",
        "ai-client usage: --sinse: there is no such option; did you mean `--since`?",
        "ai-client usage: 'x' is an unexpected argument",
        "Try `ai-client usage --help`.",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("config", "check", "--config", "FOLDER"), "can't be read (Is a directory); name the file in it"),
        (
            ("config", "check", "--config", "FOLDER/x"),
            "can't be read (No such file or directory); write the file",
        ),
        (("reload", "--socket", "FOLDER/none"), "does not answer on"),
        (
            ("audit", "verify", "--folder", "FOLDER", "--anchor", "zzz"),
            "the anchor 'zzz' is neither SEQ:HASH nor",
        ),
    ],
)
def test_what_can_not_be_used_is_named_with_its_remedy(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    """In words for people, about what was given and nothing else."""
    done = run(*(word.replace("FOLDER", str(tmp_path)) for word in words), folder=tmp_path)
    assert done.returncode != 0
    assert said in done.stderr
    assert "line 1 column" not in done.stderr
    assert "old configuration" not in done.stderr


def test_a_misspelt_command_is_answered_with_the_nearest(tmp_path: Path) -> None:
    """Be it an option that was written as a command, or with all that there are."""
    done = run("usgae", folder=tmp_path)
    assert "COMMAND: 'usgae' is not known; did you mean `usage`?" in done.stderr
    assert "'health' is not known; did you mean `--health-check`?" in run("health", folder=tmp_path).stderr
    assert "known are serve, " in run("zzz", folder=tmp_path).stderr


@each_whole
def test_ctrl_c_ends_every_command_without_a_traceback(path: tuple[str, ...], tmp_path: Path) -> None:
    """What it had printed is printed; the code is a shell's for SIGINT."""
    module = "health" if not path else path[0]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, module, *path, *WHOLE[path]],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "a line\n", "")


@pytest.fixture
def silent() -> Iterator[tuple[Path, socket.socket]]:
    """A service that takes connections and never answers."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listening:
        path = Path(folder) / "gateway.sock"
        listening.bind(str(path))
        listening.listen()
        listening.settimeout(30)
        yield path, listening


ASK = [(), ("bench",), ("chat",), ("reload",)]


@pytest.mark.parametrize("path", ASK, ids=title)
def test_ctrl_c_ends_what_waits_for_the_service(
    path: tuple[str, ...], silent: tuple[Path, socket.socket], tmp_path: Path
) -> None:
    """In the middle of a request."""
    where, listening = silent
    with start(*path, *WHOLE[path], "--socket", str(where), folder=tmp_path) as process:
        connection, _ = listening.accept()
        with connection:
            assert connection.recv(10)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")


@each_whole
def test_nothing_needs_a_terminal_a_language_or_a_service(path: tuple[str, ...], tmp_path: Path) -> None:
    """Started by a supervisor in an empty folder: it works, or says in a line or few what is missing."""
    (tmp_path / "in.jsonl").write_text("")
    with start(*path, *WHOLE[path], folder=tmp_path, LC_ALL="C") as process:
        if path in {("serve",), ("simulate",)}:
            assert process.stdout is not None
            assert "listening on" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert "Traceback" not in out + err
    assert process.returncode in (0, 1, 2, 4)
    assert process.returncode == 0 or out + err
    assert [line for line in err.splitlines() if len(line) > 300] == []
