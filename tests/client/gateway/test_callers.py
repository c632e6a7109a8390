"""Who may spend: what a uid that nobody named may do, by one setting, safe where money or tenants are declared."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from ai_client.gateway.app.callers import Caller, CallerRefusal, Doorkeeper
from ai_client.settings import BudgetSettings, GatewaySettings, Settings, TenantSettings
from ai_client.testing import Simulator
from tests.client.service_rig import TOKEN, TOKEN_SHA256, running_service

NAMED, UNNAMED, OPERATOR = 33, 1000, 0
TENANT = TenantSettings(name="web", uid=NAMED)
BY_TOKEN = TenantSettings(name="api", token_sha256=TOKEN_SHA256)


@pytest.mark.parametrize(
    ("settings", "is_refused"),
    [
        (Settings(), False),
        (Settings(tenants=(TENANT,)), True),
        (Settings(tenants=(BY_TOKEN,)), True),
        (Settings(budget=BudgetSettings(daily_usd=1.0)), True),
        (Settings(budget=BudgetSettings(monthly_usd=0.0)), True),
        (Settings(gateway=GatewaySettings(unnamed_callers="refuse")), True),
        (Settings(gateway=GatewaySettings(unnamed_callers="allow"), tenants=(TENANT,)), False),
        (
            Settings(gateway=GatewaySettings(unnamed_callers="allow"), budget=BudgetSettings(daily_usd=1.0)),
            False,
        ),
    ],
)
def test_a_uid_that_nobody_named_spends_only_where_nothing_is_declared_or_it_is_allowed(
    settings: Settings, *, is_refused: bool
) -> None:
    """Else a tenant of a token would spend beside its budget, over the socket. Operators and tenants always may."""
    doorkeeper = Doorkeeper(
        tenants=(*settings.tenants, TENANT),
        operators=frozenset({OPERATOR}),
        refuses_unnamed=settings.refuses_unnamed,
    )
    unnamed = doorkeeper.by_uid(UNNAMED)
    assert isinstance(unnamed, CallerRefusal) == is_refused
    if isinstance(unnamed, CallerRefusal):
        assert (unnamed.status, unnamed.code) == (403, "unnamed_caller")
        assert f"uid = {UNNAMED}" in unnamed.message
        assert "unnamed_callers" in unnamed.message
    assert doorkeeper.by_uid(NAMED) == Caller("web", 5, is_operator=False)
    assert doorkeeper.by_uid(OPERATOR) == Caller("uid-0", 5, is_operator=True)


def test_a_token_gives_no_operators_rights() -> None:
    """Whatever uid the caller has: over TCP nobody knows it."""
    doorkeeper = Doorkeeper(tenants=(BY_TOKEN,), operators=frozenset({OPERATOR}), refuses_unnamed=True)
    caller = doorkeeper.by_token(f"Bearer {TOKEN}".encode())
    assert caller == Caller("api", 5, is_operator=False)
    assert isinstance(doorkeeper.acting_for(caller, "web"), CallerRefusal)


async def test_metrics_and_status_can_ask_for_a_token(tmp_path: Path) -> None:
    """The page itself holds nothing, and asks."""
    async with Simulator() as simulator, running_service(tmp_path, simulator) as rig:
        text = rig.config.read_text()
        rig.config.write_text(text.replace("[monitoring]", f"[monitoring]\ntoken_sha256 = {TOKEN_SHA256}"))
        assert (await rig.command("reload")).code == 0
        url = f"http://127.0.0.1:{rig.metrics_port}"
        async with httpx.AsyncClient(base_url=url) as reader:
            bare = [(await reader.get(path)).status_code for path in ("/metrics", "/status.json", "/")]
            wrong = (await reader.get("/metrics", headers={"authorization": "Bearer no"})).status_code
            right = [
                (await reader.get(path, headers={"authorization": f"Bearer {TOKEN}"})).status_code
                for path in ("/metrics", "/status.json")
            ]
    assert (bare, wrong, right) == ([401, 401, 200], 401, [200, 200])
