"""`ai-client completion SHELL`: a script that completes commands and options, made from the parser itself."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Both walk over the words before the cursor: `path` is the commands among them, `--option value` left out.
_BASH = """\
# ai-client completion bash > /etc/bash_completion.d/ai-client
_ai_client() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" path="" words="" before="" word
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case " {valued} " in
            *" $before "*) ;;
            *) case " {names} " in *" $word "*) path="$path $word";; esac;;
        esac
        before="$word"
    done
    COMPREPLY=()
    case " {files} " in *" $before "*) COMPREPLY=($(compgen -f -- "$current")); return;; esac
    case " {valued} " in *" $before "*) return;; esac
    case "${{path# }}" in
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    [ ${{#COMPREPLY[@]}} -gt 0 ] || COMPREPLY=($(compgen -f -- "$current"))
}}
complete -o filenames -F _ai_client ai-client
"""
_ZSH = """\
#compdef ai-client
# ai-client completion zsh > /usr/local/share/zsh/site-functions/_ai-client
_ai_client() {{
    local before="" word
    local -a path_ offered
    for word in "${{(@)words[2,CURRENT-1]}}"; do
        if [[ " {valued} " != *" $before "* && " {names} " == *" $word "* ]]; then path_+=("$word"); fi
        before="$word"
    done
    if [[ " {files} " == *" $before "* ]]; then _files; return; fi
    if [[ " {valued} " == *" $before "* ]]; then return; fi
    case "${{path_[*]}}" in
{cases}
    esac
    compadd -- $offered
    _files
}}
if [[ "${{funcstack[1]}}" == "_ai-client" ]]; then _ai_client "$@"; else compdef _ai_client ai-client; fi
"""


@dataclass(frozen=True)
class _Words:
    """What the parser knows: commands and options by path, and which options take a value or a file."""

    offered: dict[tuple[str, ...], list[str]]
    valued: frozenset[str]
    files: frozenset[str]

    @property
    def names(self) -> str:
        return " ".join(sorted({word for path in self.offered for word in path}))


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    from ai_client.cli.arguments import build  # noqa: PLC0415  it imports this module's name only

    parser = build()
    actions = list(_actions(parser))
    words = _Words(
        offered=dict(_offered(parser, ())),
        valued=frozenset(name for action in actions if action.nargs != 0 for name in action.option_strings),
        files=frozenset(name for action in actions if action.type is Path for name in action.option_strings),
    )
    print({"bash": _bash, "zsh": _zsh, "fish": _fish}[options.shell](words), end="")
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from _actions(child)


def _offered(
    parser: argparse.ArgumentParser, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """For each command, by its words, what may follow: commands and options."""
    found: list[str] = []
    for action in parser._actions:
        found += [option for option in action.option_strings if option.startswith("--")]
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                found.append(name)
                yield from _offered(child, (*path, name))
        elif not action.option_strings and action.choices is not None:
            found += [str(choice) for choice in action.choices]
    yield path, found


def _bash(words: _Words) -> str:
    cases = (f'        "{" ".join(path)}") words="{" ".join(found)}";;' for path, found in _sorted(words))
    return _filled(_BASH, words, "\n".join(cases))


def _zsh(words: _Words) -> str:
    cases = (f'        "{" ".join(path)}") offered=({" ".join(found)});;' for path, found in _sorted(words))
    return _filled(_ZSH, words, "\n".join(cases))


def _filled(script: str, words: _Words, cases: str) -> str:
    valued, files = " ".join(sorted(words.valued)), " ".join(sorted(words.files))
    return script.format(names=words.names, valued=valued, files=files, cases=cases)


def _sorted(words: _Words) -> list[tuple[tuple[str, ...], list[str]]]:
    return sorted(words.offered.items())


def _fish(words: _Words) -> str:
    lines = ["# ai-client completion fish > /etc/fish/completions/ai-client.fish"]
    for path, found in _sorted(words):
        seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in path)
        seen = seen or "__fish_use_subcommand"
        deeper = " ".join(other[-1] for other in words.offered if other[:-1] == path and path)
        if deeper:
            seen += f"; and not __fish_seen_subcommand_from {deeper}"
        for word in found:
            kind = " -rF" if word in words.files else " -x" if word in words.valued else ""
            what = f"-l {word[2:]}{kind}" if word.startswith("--") else f"-f -a {word}"
            lines.append(f"complete -c ai-client -n '{seen}' {what}")
    return "\n".join(lines) + "\n"
