"""`python -m ai_client.cli`."""

import sys

from ai_client.cli import main

sys.exit(main())
