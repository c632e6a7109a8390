"""A parser that names every mistake at once, each with its remedy, and shows help that fits 80 columns."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import Any, NoReturn

from ai_client.settings import kinds

EXIT_USAGE = 2

FIRST_DAY = date(2020, 1, 1)
LAST_DAY = date(2100, 1, 1)


class Parser(argparse.ArgumentParser):
    """`mistakes` are those of values found so far; they are told together, when the whole line has been read."""

    def __init__(
        self,
        *,
        prog: str | None = None,
        description: str | None = None,
        epilog: str | None = None,
        parents: Sequence[argparse.ArgumentParser] = (),
        add_help: bool = True,
        color: bool = True,
    ) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            parents=parents,
            add_help=add_help,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        # Handed down to subcommands since Python 3.14; older ones have no colour.
        self.color = color
        self.mistakes: list[str] = []

    def parse_known_args(  # type: ignore[override]  # the base has overloads
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Nothing is left over: an unknown word is a mistake of the command that it was given to."""
        given = list(sys.argv[1:] if args is None else args)
        known = {option for action in self._actions for option in action.option_strings}
        if wrong := [word for word in given if f"-{word.partition('=')[0]}" in known - {"--help"}]:
            # argparse would take the option's value for a command.
            self.mistakes += [self._unknown(word) for word in wrong]
            self.error("")
        found, unknown = super().parse_known_args(given, namespace)
        self.mistakes += [self._unknown(word) for word in unknown]
        if self.mistakes:
            self.error("")
        return found, []

    def error(self, message: str) -> NoReturn:
        """A line for each mistake, then where the help is; exit code 2."""
        mistakes = [*self.mistakes, *([message] if message else [])]
        lines = [f"{self.prog}: {text.removeprefix('argument ')}" for text in dict.fromkeys(mistakes)]
        self.exit(EXIT_USAGE, "\n".join([*lines, f"Try `{self.prog} --help`.", ""]))

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError as exc:
            self.mistakes.append(str(exc))
            return None

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices or value is None:
            return
        hint = nearest(str(value), map(str, action.choices))
        is_command = isinstance(action, argparse._SubParsersAction)
        if is_command and (option := self._option_begun(str(value))) is not None:
            hint = f"did you mean `{option}`?"
        text = f"{_name(action)}: {str(value)!r} is not known; {hint}"
        if is_command:
            self.error(text)
        self.mistakes.append(text)

    def _option_begun(self, word: str) -> str | None:
        """The option that a word begins, where it is long enough to be meant: `health` for `--health-check`."""
        options = (option for action in self._actions for option in action.option_strings)
        known = (option for option in options if option.startswith(f"--{word}"))
        return next(known, None) if len(word) >= _MEANT_LETTERS else None

    def _unknown(self, word: str) -> str:
        if not word.startswith("-"):
            return f"{word!r} is an unexpected argument"
        options = [option for action in self._actions for option in action.option_strings]
        near = difflib.get_close_matches(word.partition("=")[0], options, n=1)
        return f"{word}: there is no such option" + (f"; did you mean `{near[0]}`?" if near else "")


# Of a word that stands for an option without its dashes.
_MEANT_LETTERS = 4


def _name(action: argparse.Action) -> str:
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest
    return "/".join(action.option_strings) or metavar


def nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean …?` where a known word is near, else all of them."""
    words = list(known)
    near = difflib.get_close_matches(word, words, n=1)
    return f"did you mean `{near[0]}`?" if near else f"known are {', '.join(words)}"


def value(kind: Callable[[str], object]) -> Callable[[str], object]:
    """A kind of the configuration file as a type of argparse: its errors quote the text and say what to write."""

    def convert(text: str) -> object:
        try:
            return kind(text)
        except ValueError as exc:
            raise argparse.ArgumentTypeError(f"{text!r}: {exc}") from None

    return convert


def day(text: str) -> date:
    """A day such as `2026-11-24`, within this century."""
    wanted = f"write a day such as 2026-11-24, from {FIRST_DAY} to {LAST_DAY}"
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise ValueError(wanted) from None
    if not FIRST_DAY <= found <= LAST_DAY:
        raise ValueError(wanted)
    return found


positive = value(kinds.integer(least=1, most=1_000_000_000))
milliseconds = value(kinds.number(least=0, most=3_600_000))
dollars = value(kinds.number(least=0, most=1e9))
share = value(kinds.number(least=0, most=1))
rate = value(kinds.number(least=0, most=1e6, above=True))
port = value(kinds.integer(least=0, most=65_535))
url = value(kinds.base_url)
