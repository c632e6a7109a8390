"""The trail's anchors go to the journal, which the service itself can't change afterwards."""

import json
import os
import sys

from ai_client.audit.chain import Anchor


def tell_journal(anchor: Anchor) -> None:
    """One JSON line on standard error, for `ai-client audit verify --anchors`; none where no journal keeps it."""
    if "JOURNAL_STREAM" not in os.environ:
        return
    line = {"event": "audit_anchor", "seq": anchor.seq, "hash": anchor.hash}
    print(json.dumps(line), file=sys.stderr, flush=True)  # noqa: T201 - the journal reads it
