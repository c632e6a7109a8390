"""The pack as its own process, driven as the engine drives it: over gRPC, with secrets wrapped and some things unknown.

The language host that the project can build starts no Python pack; the process and its protocol are the real ones.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2, struct_pb2
from pulumi.runtime import proto, rpc
from pulumi.runtime.proto import analyzer_pb2_grpc

from policy.rules import RULES
from policy.subjects import COMMAND, STACK, UNKNOWN, Resource
from tests.infra.stacks import HOST_KEY, KEY, PROJECT
from tests.policy.previews import complete, edited
from tests.program import stand


class Pack:
    """A running pack, and the questions that the engine asks it."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._stub = analyzer_pb2_grpc.AnalyzerStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def names(self) -> list[str]:
        return [policy.name for policy in self._stub.GetAnalyzerInfo(empty_pb2.Empty()).policies]

    def of_resource(self, resource: Resource, *, secret: tuple[str, ...] = ()) -> dict[str, str]:
        """What is said of a resource's inputs: message by policy, mandatory ones alone."""
        wrapped = {
            name: {rpc._special_sig_key: rpc._special_secret_sig, "value": value} if name in secret else value
            for name, value in resource["props"].items()
        }
        request = proto.AnalyzeRequest(
            type=resource["type"],
            name=resource["name"],
            urn=resource["urn"],
            properties=structure(wrapped),
        )
        return mandatory(self._stub.Analyze(request))

    def of_stack(self, resources: list[Resource]) -> dict[str, str]:
        """What is said of the whole stack's outputs."""
        return mandatory(
            self._stub.AnalyzeStack(
                proto.AnalyzeStackRequest(
                    resources=[
                        proto.AnalyzerResource(
                            type=r["type"], name=r["name"], urn=r["urn"], properties=structure(r["props"])
                        )
                        for r in resources
                    ]
                )
            )
        )


def structure(props: dict[str, Any]) -> struct_pb2.Struct:
    made = struct_pb2.Struct()
    made.update(props)
    return made


def mandatory(answer: Any) -> dict[str, str]:
    return {d.policyName: d.message for d in answer.diagnostics if d.enforcementLevel == proto.MANDATORY}


@pytest.fixture(scope="module")
def resources() -> list[Resource]:
    """A complete production stack as the program declares it, the orders in clear text."""
    declared = stand.run(complete() | {"apiKey": KEY}, name="production", preview=True)
    commands = [resource(COMMAND, name, inputs) for name, inputs in declared.commands.items()]
    return [*commands, resource(STACK, "fleet-production", declared.outputs)]


def resource(kind: str, name: str, props: dict[str, Any]) -> Resource:
    plain = {
        key: value["secret"] if isinstance(value, dict) and "secret" in value else value
        for key, value in props.items()
    }
    return {
        "urn": f"urn:pulumi:production::fleet::{kind}::{name}",
        "type": kind,
        "name": name,
        "props": plain,
    }


@pytest.fixture(scope="module")
def pack() -> Iterator[Pack]:
    config = {"fleet:environment": "production", "fleet:account": '{"rpm": 420}', "fleet:apiKey": KEY}
    environment = {**os.environ, "PULUMI_CONFIG": json.dumps(config)}
    with subprocess.Popen(
        [sys.executable, "-u", str(PROJECT / "policy")],
        cwd=Path("/"),
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        running = Pack(int(process.stdout.readline()))
        try:
            yield running
        finally:
            running.close()
            process.kill()


def wave(resources: list[Resource]) -> Resource:
    return next(r for r in resources if r["name"] == "ai_api_clients-1")


def with_order(resource: Resource, **parts: Any) -> dict[str, Any]:
    return edited(resource, stdin=json.dumps(json.loads(resource["props"]["stdin"]) | parts))


def with_variable(resource: Resource, name: str, value: object) -> dict[str, Any]:
    inventory = json.loads(resource["props"]["stdin"])["inventory"]
    groups = inventory["all"]["children"]["production"]["children"]
    groups["ai_api_clients"]["hosts"]["web-prod-01"][name] = value
    return with_order(resource, inventory=inventory)


def test_the_pack_offers_every_rule(pack: Pack) -> None:
    """What the engine lists is what rules.py holds."""
    assert pack.names() == [rule.name for rule in RULES]


def test_a_complete_stack_breaks_no_policy(pack: Pack, resources: list[Resource]) -> None:
    """Each resource as the program declares it, with the key in the secret part of its orders, passes."""
    commands = [r for r in resources if r["type"] == COMMAND]
    assert KEY in wave(resources)["props"]["stdin"]
    assert [pack.of_resource(r, secret=("stdin",)) for r in commands] == [{}] * len(commands)
    assert pack.of_stack(resources) == {}


@pytest.mark.parametrize(
    ("name", "value", "policy"),
    [
        ("ai_verify_ssl", False, "tls-is-verified"),
        ("ai_gateway_host", "10.0.1.21", "gateways-need-tokens"),
        ("ai_log_level", "DEBUG", "production-does-not-debug"),
        ("ai_client_version", "1.0.0", "artefacts-are-pinned"),
        ("ansible_ssh_common_args", "-F none", "host-keys-are-pinned"),
        ("ai_cost_tags", {"owner": KEY}, "secrets-stay-secret"),
    ],
)
def test_a_deploy_that_breaks_a_rule_is_stopped_before_it_runs(
    pack: Pack, resources: list[Resource], name: str, value: object, policy: str
) -> None:
    """The variables of an order are judged although the order is secret, and no message repeats a secret."""
    found = pack.of_resource(with_variable(wave(resources), name, value), secret=("stdin",))
    assert set(found) == {policy}
    assert "web-prod-01" in found[policy] or "stdin" in found[policy]
    assert KEY not in found[policy]


def test_a_host_whose_pin_is_missing_is_stopped(pack: Pack, resources: list[Resource]) -> None:
    """A known_hosts without the host, or a certificate authority in its place."""
    deploy = wave(resources)
    assert set(pack.of_resource(with_order(deploy, known_hosts=""), secret=("stdin",))) == {
        "host-keys-are-pinned"
    }
    certified = with_order(deploy, known_hosts=f"@cert-authority web-prod-01 {HOST_KEY}\n")
    assert pack.of_resource(certified, secret=("stdin",)) == {}


def test_hosts_that_may_send_more_than_the_account_has_are_stopped(
    pack: Pack, resources: list[Resource]
) -> None:
    """The whole stack's limits are added up; the protocol has no whole numbers, and that must not matter."""
    stack = next(r for r in resources if r["type"] == STACK)
    inventory = json.loads(json.dumps(stack["props"]["inventory"]))
    inventory["all"]["vars"] = {"ai_rpm": 61}
    assert set(pack.of_stack([edited(stack, inventory=inventory)])) == {"limits-are-within-quota"}
    inventory["all"]["vars"] = {"ai_rpm": 60}
    assert pack.of_stack([edited(stack, inventory=inventory)]) == {}


def test_what_is_not_known_yet_does_not_hide_what_is(pack: Pack, resources: list[Resource]) -> None:
    """An unknown input is passed over, and the rest of the resource is judged all the same."""
    deploy = edited(wave(resources), stdin=UNKNOWN)
    assert pack.of_resource(deploy) == {}
    assert set(pack.of_resource(edited(deploy, triggers=[UNKNOWN, KEY]))) == {"secrets-stay-secret"}
