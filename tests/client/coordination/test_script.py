"""The script on a real engine does what the model does, call by call."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import redis

from ai_client.coordination.books import Books
from ai_client.coordination.protocol import Kind, QuotaAnswer, QuotaRequest
from ai_client.coordination.wire import SCRIPT, Keys, arguments, parse

_STEPS = 600


class _Hosts:
    """Random calls, most of them such as hosts make, some such as none does."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - calls, not secrets
        self.known: dict[str, tuple[QuotaRequest, QuotaAnswer]] = {}
        self.orders: list[int] = [0]

    def next(self, epoch: str) -> QuotaRequest:
        pick = self.random
        host = f"h{pick.randint(0, 39)}"
        before = self.known.get(host)
        if before is None or pick.random() < 0.03:
            return self._fresh(host, epoch)
        asked, answer = before
        said = (
            answer
            if answer.kind is Kind.GRANTED
            else QuotaAnswer(Kind.GRANTED, order=answer.order, held=asked.held)
        )
        used = pick.randint(0, max(0, said.held))
        return replace(
            asked,
            ticket=answer.order if answer.kind is Kind.HELLO else asked.ticket,
            number=asked.number + pick.choice([1, 1, 1, 1, 0]),
            epoch=answer.epoch if pick.random() < 0.95 else "other",
            ack=said.order if pick.random() < 0.9 else 0,
            view=self._order(),
            ripe=pick.random() < 0.5,
            soft=self._order(),
            past=self._order() if pick.random() < 0.3 else 0,
            lenient=pick.random() < 0.3,
            held=pick.choice([-1, said.held, said.held, pick.randint(used, max(used, said.held))]),
            cap=said.cap,
            used=used,
            share=asked.share if pick.random() < 0.95 else pick.randint(0, 50),
            demand=pick.choice([0, 5, 50, 100_000]),
        )

    def _fresh(self, host: str, epoch: str) -> QuotaRequest:
        pick = self.random
        share = pick.choice([0, 1, 10, 1_000, 20_000_000])
        return QuotaRequest(
            host=host, instance=f"{host}.{pick.random()}", ticket=self._order(), number=1, epoch=epoch, ack=0, view=0,
            ripe=False, soft=0, past=0, lenient=False, held=pick.choice([-1, share]), cap=share, used=0, share=share,
            floor=min(share, pick.randint(0, 2)), demand=pick.randint(0, 50),
        )  # fmt: skip

    def _order(self) -> int:
        newest = self.orders[-1]
        return max(0, newest - self.random.choice([0, 1, 5, 30, 100]))

    def said(self, request: QuotaRequest, answer: QuotaAnswer) -> None:
        if answer.kind is not Kind.STALE:
            self.known[request.host] = (request, answer)
            self.orders.append(answer.order)


def run_of(link: redis.Redis) -> str:
    server, replication = link.info("server"), link.info("replication")
    return server["run_id"] + replication["master_replid"]


@pytest.mark.parametrize("seed", range(6))
def test_the_script_answers_as_the_model_does(link: redis.Redis, seed: int) -> None:
    books, hosts = Books(), _Hosts(seed)
    script = link.register_script(SCRIPT)
    run = run_of(link)
    for step in range(_STEPS):
        request = hosts.next(books.epoch)
        expected = books.call(run, request)
        (answer,) = parse(script(keys=Keys("account").all(), args=arguments([request])))
        assert answer == expected, f"seed {seed}, step {step}: {request}"
        hosts.said(request, answer)


def test_books_of_another_process_are_begun_anew(link: redis.Redis) -> None:
    """A dump that another process wrote is met by the script: who held what is to be said again."""
    script = link.register_script(SCRIPT)
    names = Keys("account").all()
    hosts = _Hosts(1)
    request = replace(hosts._fresh("h", ""), share=10, cap=10, held=10, floor=1, ticket=0)
    (hello,) = parse(script(keys=names, args=arguments([request])))
    request = replace(request, ticket=hello.order, epoch=hello.epoch, number=2)
    (first,) = parse(script(keys=names, args=arguments([request])))
    assert (first.kind, first.held) == (Kind.GRANTED, 10)
    dumps = {name: link.dump(name) for name in names if link.exists(name)}
    link.flushall()
    link.execute_command("REPLICAOF", "127.0.0.1", "1")
    link.execute_command("REPLICAOF", "NO", "ONE")
    for name, dump in dumps.items():
        link.restore(name, 0, dump)
    again = replace(request, number=3, held=7, cap=7, ack=first.order, epoch=first.epoch)
    (second,) = parse(script(keys=names, args=arguments([again])))
    assert second.epoch != first.epoch
    assert second.recovering
    assert second.cap <= 7


def test_two_quotas_are_asked_in_one_call(link: redis.Redis) -> None:
    script = link.register_script(SCRIPT)
    requests = [_Hosts(2)._fresh("h", ""), _Hosts(3)._fresh("h", "")]
    requests[1] = replace(requests[1], instance=requests[0].instance)
    answers = parse(script(keys=Keys("account", ("requests", "tokens")).all(), args=arguments(requests)))
    assert [answer.kind for answer in answers] == [Kind.HELLO, Kind.HELLO]


def test_the_script_forgets_whom_the_model_forgets(link: redis.Redis) -> None:
    """A host that is silent for long enough, and no other; what it said of itself goes with it."""
    books, hosts, keys = Books(), _Hosts(11), Keys("account")
    script = link.register_script(SCRIPT)
    run, forgotten = run_of(link), 0
    for step in range(_STEPS):
        if step % 7 == 0 and books.members:
            host = hosts.random.choice(sorted(books.members))
            (gone,) = script(keys=keys.all(), args=[host, "", ""])
            assert bool(gone) is books.forget(host), f"step {step}: {host}"
            forgotten += gone
            assert link.hexists(keys.reports, host) is not bool(gone)
        request = hosts.next(books.epoch)
        expected = books.call(run, request)
        (answer,) = parse(script(keys=keys.all(), args=arguments([request], report="a report")))
        assert answer == expected, f"step {step}: {request}"
        hosts.said(request, answer)
    assert forgotten
    assert [int(gone) for gone in script(keys=keys.all(), args=["nobody", "", ""])] == [1]
