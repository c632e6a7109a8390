"""The rate window's memory: a restart, even after a kill, opens no second window."""

import subprocess
import sys
from pathlib import Path

from ai_client.admission.sent_log import SentLog
from ai_client.admission.window import SlidingWindow, WindowEntry
from ai_client.platform.clock import ManualClock

NOW_S = 1_795_500_000.0


def entries(log: SentLog, *, since_s: float = 0.0) -> list[list[float]]:
    return log.snapshot(since_s=since_s)["entries"]


def test_what_was_sent_is_there_for_the_next_process(tmp_path: Path) -> None:
    """With its time and tokens, settled where that was known."""
    log = SentLog(tmp_path, slots=10)
    slot = log.sent(at_s=NOW_S, tokens=500)
    log.sent(at_s=NOW_S + 1, tokens=70)
    log.settle(slot, at_s=NOW_S, tokens=120)
    log.close()
    later = SentLog(tmp_path, slots=10)
    assert entries(later) == [[NOW_S, 1, 120], [NOW_S + 1, 1, 70]]
    assert entries(later, since_s=NOW_S + 0.5) == [[NOW_S + 1, 1, 70]]
    later.close()


def test_the_ring_keeps_the_newest(tmp_path: Path) -> None:
    """Also over restarts, and with another number of slots; a slot that went on is not settled."""
    log = SentLog(tmp_path, slots=5)
    first = log.sent(at_s=NOW_S, tokens=0)
    for number in range(1, 9):
        log.sent(at_s=NOW_S + number, tokens=number)
    log.settle(first, at_s=NOW_S, tokens=999)
    assert [tokens for _, _, tokens in entries(log)] == [4, 5, 6, 7, 8]
    log.close()
    wider = SentLog(tmp_path, slots=8)
    wider.sent(at_s=NOW_S + 9, tokens=9)
    assert [tokens for _, _, tokens in entries(wider)] == [4, 5, 6, 7, 8, 9]
    wider.close()
    narrower = SentLog(tmp_path, slots=3)
    assert [tokens for _, _, tokens in entries(narrower)] == [8, 9]
    narrower.sent(at_s=NOW_S + 10, tokens=10)
    assert [tokens for _, _, tokens in entries(narrower)] == [8, 9, 10]
    narrower.close()


def test_one_process_may_start_while_another_one_drains(tmp_path: Path) -> None:
    """Each writes to a file of its own and sees what the other sends."""
    old = SentLog(tmp_path, slots=10)
    old.sent(at_s=NOW_S, tokens=1)
    new = SentLog(tmp_path, slots=10)
    new.sent(at_s=NOW_S + 1, tokens=2)
    old.sent(at_s=NOW_S + 2, tokens=3)
    assert [tokens for _, _, tokens in entries(new)] == [1, 2, 3]
    old.close()
    third = SentLog(tmp_path, slots=10)
    assert [tokens for _, _, tokens in entries(third)] == [1, 2, 3]
    assert len(list(tmp_path.iterdir())) == 2
    new.close()
    third.close()


def test_a_damaged_ring_costs_its_entries_only(tmp_path: Path) -> None:
    """Cut off in the middle of a record, or full of rubbish: never an error."""
    (tmp_path / "sent-1.ring").write_bytes(b"\xff" * 1_001)
    log = SentLog(tmp_path, slots=10)
    log.sent(at_s=NOW_S, tokens=1)
    assert entries(log, since_s=NOW_S) == [[NOW_S, 1, 1]]
    log.close()


def test_a_killed_process_leaves_no_request_uncounted(tmp_path: Path) -> None:
    """Each send that it told of is in the window of the next one, which so stays within the limit."""
    program = (
        "import sys; from pathlib import Path; from ai_client.admission.sent_log import SentLog\n"
        "log = SentLog(Path(sys.argv[1]), slots=1000)\n"
        "for number in range(700):\n"
        f"    log.sent(at_s={NOW_S} + number / 1000, tokens=10)\n"
        "    print(number, flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE)
    assert child.stdout is not None
    told = 0
    while told < 400:
        told = int(child.stdout.readline()) + 1
    child.kill()
    child.wait(timeout=30)
    child.stdout.close()
    clock = ManualClock(wall_s=NOW_S + 1)
    window = SlidingWindow(limit_requests=1_000, limit_tokens=100_000)
    log = SentLog(tmp_path, slots=1000)
    restored = window.restore(log.snapshot(since_s=clock.wall() - 61), clock=clock)
    log.close()
    assert restored >= told
    assert window.used_requests == restored
    assert window.used_tokens == 10 * restored
    for _ in range(1_000 - restored):
        assert window.fits(10, clock.monotonic())
        window.reserve(WindowEntry(10))
    assert not window.fits(10, clock.monotonic())
