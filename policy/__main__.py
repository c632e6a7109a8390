"""The policy pack: `pulumi preview --policy-pack policy` starts it. Each rule is a policy; see rules.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from policy.pack import start

start()
