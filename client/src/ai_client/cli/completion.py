"""`ai-client completion SHELL`: a script that completes commands and options, made from the parser itself."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

_BASH = """\
# ai-client completion bash > /etc/bash_completion.d/ai-client
_ai_client() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" path="" word
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$word" in -*) ;; *) case " {names} " in *" $word "*) path="$path $word";; esac;; esac
    done
    local words=""
    case "${{path# }}" in
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    [ ${{#COMPREPLY[@]}} -gt 0 ] || COMPREPLY=($(compgen -f -- "$current"))
}}
complete -o filenames -F _ai_client ai-client
"""
_ZSH = """\
# ai-client completion zsh > /usr/local/share/zsh/site-functions/_ai-client
autoload -U +X bashcompinit && bashcompinit
"""


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    from ai_client.cli.arguments import build  # noqa: PLC0415  it imports this module's name only

    tree = dict(_words(build(), ()))
    print(
        _fish(tree) if options.shell == "fish" else (_ZSH if options.shell == "zsh" else "") + _bash(tree),
        end="",
    )
    return 0


def _words(
    parser: argparse.ArgumentParser, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """For each command, by its words, what may follow: commands and options."""
    found: list[str] = []
    for action in parser._actions:
        found += [option for option in action.option_strings if option.startswith("--")]
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                found.append(name)
                yield from _words(child, (*path, name))
        elif not action.option_strings and action.choices is not None:
            found += [str(choice) for choice in action.choices]
    yield path, found


def _bash(tree: dict[tuple[str, ...], list[str]]) -> str:
    names = sorted({word for path in tree for word in path})
    cases = "\n".join(
        f'        "{" ".join(path)}") words="{" ".join(words)}";;' for path, words in sorted(tree.items())
    )
    return _BASH.format(names=" ".join(names), cases=cases)


def _fish(tree: dict[tuple[str, ...], list[str]]) -> str:
    lines = ["# ai-client completion fish > /etc/fish/completions/ai-client.fish"]
    for path, words in sorted(tree.items()):
        seen = (
            "; and ".join(f"__fish_seen_subcommand_from {word}" for word in path) or "__fish_use_subcommand"
        )
        for word in words:
            what = f"-l {word[2:]}" if word.startswith("--") else f"-a {word}"
            lines.append(f"complete -c ai-client -n '{seen}' {what}")
    return "\n".join(lines) + "\n"
