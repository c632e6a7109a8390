"""Which runs an operation reaches: `--target` and `--exclude`, which Pulumi tells no program of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from infra import engine_process

_ONLY = frozenset({"--target", "-t", "--target-replace"})
_EXCLUDES = frozenset({"--exclude", "-x"})
_DEPENDENTS = frozenset({"--target-dependents"})


@dataclass(frozen=True, slots=True)
class OperationTargets:
    """What an operation is limited to.

    Attributes:
        only: patterns of the resources that it reaches; all where empty.
        without: patterns of those that it leaves out.
        and_dependents: whether what depends on a target is reached too.
    """

    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    and_dependents: bool = False

    def reach(self, resource: str) -> bool:
        """Whether a resource of this name is reached."""
        if any(_matches(resource, pattern) for pattern in self.without):
            return False
        return not self.only or self.and_dependents or any(_matches(resource, p) for p in self.only)


def of_this_operation() -> OperationTargets:
    """What the engine above this process was told."""
    return parse(engine_process.arguments())


def parse(arguments: Sequence[str]) -> OperationTargets:
    """What the words of a command say: `--target URN`, `--target=URN`, several by commas."""
    options = list(_options(arguments))
    return OperationTargets(
        only=tuple(value for name, value in options if name in _ONLY),
        without=tuple(value for name, value in options if name in _EXCLUDES),
        and_dependents=any(word in _DEPENDENTS for word in arguments),
    )


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    for index, word in enumerate(arguments):
        name, has_value, value = word.partition("=")
        if name in _ONLY | _EXCLUDES:
            given = value if has_value else "".join(arguments[index + 1 : index + 2])
            yield from ((name, one) for one in given.split(",") if one)


def _matches(resource: str, pattern: str) -> bool:
    """Whether the pattern of a URN is of a resource, told by the name at its end; `*` and `**` are anything."""
    return fnmatchcase(resource, pattern.rpartition("::")[2].replace("**", "*"))
