"""Sent first: takes the program's modules from standard input and starts it. A module is compiled when imported."""

import sys


class Sources:
    """An importer of modules that are in memory alone: nothing of the program is ever on the host's disk."""

    def __init__(self, texts):
        self._texts = texts

    def find_spec(self, name, path=None, target=None):
        """As `importlib.abc.MetaPathFinder` says."""
        if name not in self._texts:
            return None
        return type(sys.__spec__)(name, self, is_package="." not in name)

    def create_module(self, spec):
        """The usual module object."""

    def exec_module(self, module):
        """Runs the module's text; its lines can't be shown in a traceback, and so show nothing."""
        exec(compile(self._texts[module.__name__], f"<{module.__name__}>", "exec"), module.__dict__)  # noqa: S102


def read_modules(stdin):
    """A line with their number, then for each a line with name and size, and the text."""
    texts = {}
    for _ in range(int(stdin.readline())):
        name, size = stdin.readline().split()
        texts[name.decode()] = stdin.read(int(size))
    return texts


stdin = sys.stdin.buffer
sys.meta_path.insert(0, Sources(read_modules(stdin)))
desired, manner, artefact = [stdin.read(int(size)) for size in stdin.readline().split()]

from on_host.unchanged_check import check_unchanged  # noqa: E402

answer = check_unchanged(desired, is_check=b'"check": true' in manner)
if answer is not None:
    sys.stdout.write(f"{answer}\n")
    sys.exit(0)

from on_host.program import main  # noqa: E402

sys.exit(main(desired, manner, artefact))
