"""The applier's packages on the path: the FAQ quotes what they say."""

import sys

from tests.infra.stacks import PROJECT

sys.path.append(str(PROJECT / "ansible" / "applier"))
