"""The rate window on disk grows with the limit, survives that, and keeps nothing that no longer counts."""

from __future__ import annotations

import errno
import signal
from pathlib import Path
from unittest.mock import patch

from ai_client.contract.events import Sent
from ai_client.gateway.process.window_memory import WINDOW_S, WindowMemory
from ai_client.testing import Simulator
from tests.client.event_samples import tell
from tests.client.service_rig import running_service

NOW_S = 1_780_000_000.0
CHAT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}


def sent(name: str, at_s: float) -> Sent:
    """A request that goes out."""
    return Sent(
        at=at_s,
        request_id=name,
        tenant="t",
        model="m",
        endpoint="chat/completions",
        attempt=1,
        key_fingerprint="",
    )


def count(memory: WindowMemory) -> int:
    """How many requests the next process would know of."""
    return len(memory.load(now_s=NOW_S)["entries"])


def test_a_limit_that_rises_keeps_what_was_sent_and_remembers_more(tmp_path: Path) -> None:
    """The next process reads the smaller ring too. A limit that falls keeps the larger one."""
    memory = WindowMemory(tmp_path, limit_rpm=10, counts_tokens=False)
    for number in range(50):
        tell(memory, sent(f"a{number}", NOW_S))
    memory.reconfigure(limit_rpm=6000, counts_tokens=False)
    for number in range(3000):
        tell(memory, sent(f"b{number}", NOW_S))
    assert count(memory) == 3050
    memory.reconfigure(limit_rpm=10, counts_tokens=False)
    assert count(memory) == 3050
    memory.close()
    after = WindowMemory(tmp_path, limit_rpm=6000, counts_tokens=False)
    assert count(after) == 3050
    after.close()


def test_a_disk_that_is_full_leaves_the_smaller_ring_in_place(tmp_path: Path) -> None:
    """Here: a folder in the place of the next ring."""
    memory = WindowMemory(tmp_path, limit_rpm=10, counts_tokens=False)
    (tmp_path / "window" / "sent-2.ring").mkdir()
    tell(memory, sent("a", NOW_S))
    memory.reconfigure(limit_rpm=6000, counts_tokens=False)
    tell(memory, sent("b", NOW_S))
    assert count_of_file(tmp_path / "window" / "sent-1.ring") == 2
    memory.close()


def test_a_disk_that_has_room_again_gets_what_was_sent_meanwhile(tmp_path: Path) -> None:
    """No descriptor and no lock stays of the tries that failed, of which there is one a second."""
    no_room = OSError(errno.ENOSPC, "No space left on device")
    before = len(list(Path("/proc/self/fd").iterdir()))
    with patch("ai_client.admission.sent_log.os.posix_fallocate", side_effect=no_room) as fallocate:
        memory = WindowMemory(tmp_path, limit_rpm=600, counts_tokens=False)
        for number in range(200):
            tell(memory, sent(f"a{number}", NOW_S + number / 10))
        assert 15 <= fallocate.call_count <= 25
        assert len(list(Path("/proc/self/fd").iterdir())) == before
    tell(memory, sent("b", NOW_S + 30))
    assert len(memory.load(now_s=NOW_S + 30)["entries"]) == 201
    memory.close()


def test_a_process_that_starts_on_a_full_disk_counts_what_was_sent_before(tmp_path: Path) -> None:
    """Reading takes no room."""
    before = WindowMemory(tmp_path, limit_rpm=600, counts_tokens=False)
    tell(before, sent("a", NOW_S))
    no_room = OSError(errno.ENOSPC, "No space left on device")
    with patch("ai_client.admission.sent_log.os.posix_fallocate", side_effect=no_room):
        after = WindowMemory(tmp_path, limit_rpm=600, counts_tokens=False)
        assert len(after.load(now_s=NOW_S + 1)["entries"]) == 1
    before.close()
    after.close()


def count_of_file(path: Path) -> int:
    """Records with a time."""
    content = path.read_bytes()
    return sum(content[at : at + 8] != bytes(8) for at in range(0, len(content), 16))


def test_what_never_ends_is_forgotten_with_its_minute(tmp_path: Path) -> None:
    """Parts of a merged call end under other names than the call that was sent."""
    memory = WindowMemory(tmp_path, limit_rpm=60_000, counts_tokens=True)
    for number in range(1000):
        tell(memory, sent(f"{number}", NOW_S + number))
    assert memory.remembered <= WINDOW_S + 1
    memory.close()


async def test_a_kill_after_a_raised_limit_forgets_nothing(tmp_path: Path) -> None:
    """A real service: reload, traffic, SIGKILL, start."""
    async with Simulator() as simulator:
        async with (
            running_service(tmp_path, simulator, extra="rate_limit = 10") as rig,
            rig.client() as client,
        ):
            rig.set_config(simulator.base_url, "rate_limit = 6000")
            assert (await rig.command("reload")).code == 0
            for number in range(300):
                await client.post("/v1/chat/completions", json=CHAT | {"seed": number})
            rig.process.send_signal(signal.SIGKILL)
            await rig.process.wait()
        async with (
            running_service(tmp_path, simulator, extra="rate_limit = 6000") as rig,
            rig.client() as client,
        ):
            assert (await client.get("/status.json")).json()["limits"]["rpm_used"] == 300
