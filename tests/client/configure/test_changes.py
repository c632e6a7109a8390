"""What a reload takes of a changed configuration: a running client, a new client, or a new process."""

from __future__ import annotations

from dataclasses import fields

import pytest

from ai_client.configure.changes import _CLIENT, _PROCESS, changes
from ai_client.settings import Settings, loads
from ai_client.settings.sections import SECTIONS

# Read anew by what is running: `Assembly.reconfigure`, the gateway's runtime, or whoever looks at each use.
TAKEN_AT_ONCE = {
    "api": {"max_retries", "key_prefixes"},
    "models": {"default", "fallback", "fallback_chain"},
    "performance": {
        "max_concurrent_requests",
        "rate_limit_rpm",
        "token_limit_tpm",
        "request_timeout_buffer_s",
    },
    "caching": {"ttl_s", "ttl_chat_s", "ttl_completions_s", "ttl_embeddings_s"},
    "logging": {"level", "log_dir", "format", "rotation", "retention_days"},
    "monitoring": {"token_sha256"},
    "gateway": {"drain_s", "max_body_mb", "names", "pass_through", "unnamed_callers"},
    "routing": {"ordinary", "critical", "critical_share"},
}


def test_every_key_is_taken_in_one_way() -> None:
    """A new key is put somewhere on purpose."""
    every = {(name, item.name) for name, kind in SECTIONS.items() for item in fields(kind)}
    listed = [(section, key) for table in (_PROCESS, _CLIENT) for section, keys in table for key in keys]
    listed += [(section, key) for section, keys in TAKEN_AT_ONCE.items() for key in keys]
    assert len(listed) == len(set(listed))
    assert set(listed) == every


@pytest.mark.parametrize(
    ("text", "sections", "client", "process"),
    [
        ("", (), False, False),
        ("[performance]\nrate_limit = 5", ("performance",), False, False),
        ("[api]\ntimeout = 5", ("api",), True, False),
        ("[model_costs]\ngpt-4.1 = 1", ("model_costs",), True, False),
        ("[cost_tags]\nteam = a", ("cost_tags",), True, False),
        ("[tenant a]\nuid = 5", ("tenants",), True, False),
        ("[upstream a]\nbase_url = https://a/v1", ("upstreams",), True, False),
        ("[limit gpt-4.1]\nrequests_per_minute = 5", ("limits",), True, False),
        ("[gateway]\nport = 9", ("gateway",), False, True),
        ("[traces]\nsample_share = 0.5\n[routing]\nordinary = a", ("routing", "traces"), False, True),
    ],
)
def test_what_it_takes(text: str, sections: tuple[str, ...], client: bool, process: bool) -> None:
    """From an empty file to one with a few lines."""
    told = changes(Settings(), loads(text, path="x"))
    assert (told.sections, told.needs_client, told.needs_process) == (sections, client, process)
