"""Sent first: takes the program's modules from standard input and starts it. A module is compiled when imported."""

import json
import sys
from importlib.machinery import ModuleSpec


class Sources:
    """An importer of modules that are in memory alone: nothing of the program is ever on the host's disk."""

    def __init__(self, texts):
        self._texts = texts

    def find_spec(self, name, path=None, target=None):
        """As `importlib.abc.MetaPathFinder` says."""
        if name not in self._texts:
            return None
        return ModuleSpec(name, self, is_package="." not in name)

    def create_module(self, spec):
        """The usual module object."""

    def exec_module(self, module):
        """Runs the module's text; its lines can't be shown in a traceback, and so show nothing."""
        exec(compile(self._texts[module.__name__], f"<{module.__name__}>", "exec"), module.__dict__)  # noqa: S102


stdin = sys.stdin.buffer
sys.meta_path.insert(0, Sources(json.loads(stdin.read(int(stdin.readline())))))

from ai_client_applier.program import main  # noqa: E402

sys.exit(main(stdin))
