"""The command line of `ai-client`, from its own parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from ai_client.cli import arguments
from tools.pages import markdown

_INTRO = """\
`ai-client COMMAND [OPTION]…`. The options in the first table may come before or after the command. The exit code is 0
for success, 1 for failure, and 2 for a mistake on the command line;
[some commands have more](../how-to/node.md#exit-codes)."""


def text() -> str:
    """The page."""
    parser = arguments.build()
    shared = frozenset(option for action in _plain(parser) for option in action.option_strings)
    return markdown.page(
        "Command line", _INTRO, _table(parser, frozenset()), *_commands(parser, "ai-client", shared)
    )


def _commands(parser: argparse.ArgumentParser, path: str, shared: frozenset[str]) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, inner in action.choices.items():
                yield f"## `{path} {name}`\n\n{_sentence(helps.get(name, ''))}\n\n{_table(inner, shared)}"
                yield from _commands(inner, f"{path} {name}", shared)


def _table(parser: argparse.ArgumentParser, shared: frozenset[str]) -> str:
    rows = [
        (_usage(action), _default(action), _help(action))
        for action in _plain(parser)
        if not shared.intersection(action.option_strings)
    ]
    return markdown.table(("option", "default", "meaning"), rows) if rows else ""


def _plain(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    left_out = (argparse._HelpAction, argparse._SubParsersAction)
    return [action for action in parser._actions if not isinstance(action, left_out)]


def _usage(action: argparse.Action) -> str:
    value = action.metavar or (action.dest.upper() if action.option_strings else action.dest)
    if action.choices:
        value = "\\|".join(map(str, action.choices))
    if not action.option_strings:
        return f"`{value}`"
    taken = "" if action.nargs == 0 else f" {value}"
    return ", ".join(f"`{option}{taken}`" for option in action.option_strings)


def _default(action: argparse.Action) -> str:
    nothing = (None, False, argparse.SUPPRESS)
    return "" if any(action.default is value for value in nothing) else markdown.code(str(action.default))


def _help(action: argparse.Action) -> str:
    known = (action.help or "") % {"default": action.default, "prog": "ai-client"}
    return _sentence(known.removeprefix(f"default: {action.default}"))


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:].removesuffix('.')}." if words else ""
