"""`--target` and `--exclude`: the probe asks the hosts that an operation reaches, and no others."""

from pathlib import Path

import pytest

from infra.hosts.model import Node
from infra.plan.targets import OperationTargets, parse
from infra.program import reached_hosts
from tests.infra.playbook.test_consent import engine, python

URN = "urn:pulumi:live::fleet::fleet:index:Deployment$command:local:Command::"


@pytest.mark.parametrize(
    ("words", "reached"),
    [
        ("preview", {"web-1", "web-2", "api-1"}),
        (f"up --target {URN}web-1", {"web-1"}),
        (f"up --target={URN}web-1,{URN}api-1", {"web-1", "api-1"}),
        (f"up -t {URN}web-1 -t {URN}web-2", {"web-1", "web-2"}),
        ("up --target **web-*", {"web-1", "web-2"}),
        (f"up --target {URN}claim-web-1", set()),
        (f"up --target {URN}claim-web-1 --target-dependents", {"web-1", "web-2", "api-1"}),
        (f"preview --exclude {URN}web-1", {"web-2", "api-1"}),
        (f"preview --target **web-* --exclude={URN}web-2", {"web-1"}),
        ("up --target", {"web-1", "web-2", "api-1"}),
    ],
)
def test_an_operation_reaches_what_its_words_say(words: str, reached: set[str]) -> None:
    """As the engine reads them."""
    targets = parse(words.split())
    assert {name for name in ("web-1", "web-2", "api-1") if targets.reach(name)} == reached


def test_hosts_arereached_hosts_by_their_waves() -> None:
    """A wave is one run."""
    hosts = [Node(name=f"h{n}", address=f"10.0.0.{n}") for n in range(3)]
    waves = {"web": ((hosts[0],), (hosts[1], hosts[2]))}
    assert reached_hosts(waves, parse(["up", "--target", f"{URN}web-2"])) == {"h1", "h2"}
    assert reached_hosts(waves, OperationTargets()) is None


def test_the_words_of_the_engine_above_are_found(tmp_path: Path) -> None:
    """Pulumi tells no program of them."""
    code = "from infra.plan.targets import of_this_operation as o\nprint(*o().only)"
    assert engine(tmp_path / "bin", python(code)) == []
    said = engine(tmp_path / "bin", python(code), "--target", f"{URN}web-1")
    assert said == [f"{URN}web-1"]
