"""What is said of hosts behind a jump host that does not answer."""

from infra.playbook.runner import named_jump_hosts

CONFIG = """\
Host bastion 10.0.0.1
  HostName 10.0.0.1
  User deploy
Host inner
  HostName 10.0.0.2
  ProxyJump bastion
Host web-1 10.0.1.11
  HostName 10.0.1.11
  ProxyJump bastion
Host db-1 10.0.1.12
  HostName 10.0.1.12
  ProxyJump bastion,inner
Host near 10.0.1.13
  HostName 10.0.1.13
Host *
  BatchMode yes
"""
REFUSED = "ssh: connect to host 10.0.0.1 port 22: Connection refused"


def unreached(text: str) -> dict[str, object]:
    return {"unreachable": True, "message": text}


def test_a_dead_jump_host_is_named_alike_by_all_hosts_behind_it() -> None:
    """Instead of as many riddles as hosts; the first dead one on the way, and only where a host was not reached."""
    results = {
        "web-1": unreached("Connection closed by UNKNOWN port 65535"),
        "db-1": unreached("kex_exchange_identification: Connection closed"),
        "near": unreached("Connection timed out"),
    }
    said = named_jump_hosts(results, CONFIG, dead={"bastion": REFUSED, "inner": "closed"})
    told = f"jump host bastion does not answer: {REFUSED}"
    assert [said[host]["message"] for host in results] == [told, told, "Connection timed out"]


def test_a_host_that_was_reached_all_the_same_keeps_its_own_words() -> None:
    """Its connection may be kept from before."""
    well = {"changed": False, "message": ""}
    assert named_jump_hosts({"web-1": well}, CONFIG, dead={"bastion": REFUSED}) == {"web-1": well}
    behind_inner = named_jump_hosts(
        {"db-1": unreached("x"), "web-1": unreached("y")}, CONFIG, dead={"inner": "closed"}
    )
    assert behind_inner["db-1"]["message"] == "jump host inner does not answer: closed"
    assert behind_inner["web-1"]["message"] == "y"
