"""Forms to other upstreams than the default one: who gets them, and where a file is found again."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from ai_client.gateway.app.api_request import _without_model
from tests.client.gateway.test_upstreams import Fleet, fleet

SECTION = "models = ours=vendor/gpt-4.1"
SOUND = {"file": ("a.wav", b"RIFF")}
PICTURE = {"image": ("a.png", b"PNG")}


async def upload(run: Fleet, path: str, files: Any, **fields: str) -> httpx.Response:
    """One form."""
    async with run.rig.tcp_client() as client:
        return await client.post(f"/v1/{path}", data=fields, files=files)


@pytest.mark.parametrize("model", ["ours", "second/ours"])
@pytest.mark.parametrize(
    ("path", "files", "more"),
    [
        ("audio/transcriptions", SOUND, {}),
        ("audio/transcriptions", SOUND, {"stream": "true"}),
        ("audio/translations", SOUND, {}),
        ("images/edits", PICTURE, {"prompt": "a dog"}),
        ("images/edits", [("image[]", ("a.png", b"1")), ("image[]", ("b.png", b"2"))], {"prompt": "both"}),
        ("images/variations", PICTURE, {}),
    ],
)
async def test_a_form_goes_to_the_upstream_of_its_model(
    tmp_path: Path, model: str, path: str, files: Any, more: dict[str, str]
) -> None:
    """With the name that the upstream has for it, whether the caller names the upstream or the model alone."""
    async with fleet(tmp_path, section=SECTION) as run:
        answer = await upload(run, path, files, model=model, **more)
        assert answer.status_code == 200, answer.text
        assert [each.model for each in run.second.arrivals] == ["vendor/gpt-4.1"]


async def test_a_model_that_the_default_upstream_lacks_is_asked_of_who_declares_it(tmp_path: Path) -> None:
    """Whatever API; a name that nobody has is the caller's mistake, though a chain stands behind."""
    chain = "[models]\nfallback_chain = deepseek-v3.2"
    async with fleet(tmp_path, section=SECTION, extra=chain) as run:
        chat = await run.chat("ours")
        assert (chat.status_code, chat.headers["x-ai-model"]) == (200, "second/ours")
        missing = await run.chat("nobodys")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")
        assert "deepseek-v3.2" not in [each.model for each in run.first.arrivals]


@pytest.mark.parametrize("named", ["second/", "second/ours", "ours"])
async def test_a_file_lives_on_the_upstream_that_its_upload_names(tmp_path: Path, named: str) -> None:
    """The name is for us alone: providers know no `model` of a file."""
    async with fleet(tmp_path, section=f"{SECTION}\norder = 0\nweight = 1000000") as run:
        kept = await upload(run, "files", {"file": ("a.txt", b"the first's")}, purpose="user_data")
        for number in range(3):  # its ids are others than those of the first
            await run.chat("second/ours", seed=number)
        before = len(run.first.arrivals)
        files = {"file": ("a.txt", b"the second's")}
        made = await upload(run, "files", files, purpose="user_data", model=named)
        assert (made.status_code, run.second.arrivals[-1].model) == (200, "")
        path = f"/v1/files/{made.json()['id']}"
        async with run.rig.tcp_client() as client:
            assert (await client.get(f"{path}/content")).content == b"the second's"
            assert (await client.get(path)).json()["purpose"] == "user_data"
            assert (await client.delete(path)).json()["deleted"]
            assert len(run.first.arrivals) == before
            first = await client.get(f"/v1/files/{kept.json()['id']}/content")
        assert first.content == b"the first's"


async def test_files_are_listed_where_the_query_says(tmp_path: Path) -> None:
    """By the same word as an upload is kept by, which the provider does not get; the rest of the query goes on."""
    async with fleet(tmp_path, section=SECTION) as run:
        await upload(run, "files", {"file": ("a.txt", b"1")}, purpose="user_data")
        files = {"file": ("b.txt", b"2")}
        await upload(run, "files", files, purpose="batch", model="second/")
        async with run.rig.tcp_client() as client:
            listed = {
                query: [each["purpose"] for each in (await client.get(f"/v1/files{query}")).json()["data"]]
                for query in ("", "?model=second/", "?limit=9&model=second%2Fours")
            }
        assert listed == {
            "": ["user_data"],
            "?model=second/": ["batch"],
            "?limit=9&model=second%2Fours": ["batch"],
        }
    assert _without_model("limit=9&model=second%2Fours&after=") == (
        "limit=9&after=",
        {"model": "second/ours"},
    )


async def test_a_list_of_files_is_the_tenants_own(tmp_path: Path) -> None:
    """All tenants use one account of the provider's, whose list has everybody's; what came from elsewhere stays in."""
    digest = hashlib.sha256(b"another-token").hexdigest()
    async with (
        fleet(tmp_path, extra=f"[tenant others]\ntoken_sha256 = {digest}") as run,
        run.rig.tcp_client() as ours,
        run.rig.tcp_client(token="another-token") as theirs,
    ):
        made = [
            (await each.post("/v1/files", data={"purpose": "batch"}, files={"file": ("a", b"1")})).json()[
                "id"
            ]
            for each in (ours, theirs)
        ]
        seen = [
            [each["id"] for each in (await client.get("/v1/files")).json()["data"]]
            for client in (ours, theirs)
        ]
    assert seen == [[made[0]], [made[1]]]
