"""Local hosts as resources of the stack: a network, a host each, and the provider simulator."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import Any

import pulumi
from pulumi_command import local as command_provider

from infra.config.schema import FleetSettings
from infra.errors import NodeSourceError
from infra.hosts import local
from infra.hosts.model import Captured
from infra.project_files import PROJECT
from infra.resources.command import child, command

_MODULE = "tools.hosts"
_NETWORK = "(network)"  # no host can have this name
Status = Mapping[str, Any]


class LocalHosts(pulumi.ComponentResource):
    """The machines of a stack whose hosts live on this machine.

    Attributes:
        captured: host keys and gateway token of the fleet, known once it is made.
        ready: resources that a deploy waits for.
    """

    captured: pulumi.Output[Captured]
    ready: list[pulumi.Resource]

    def __init__(
        self,
        name: str,
        settings: FleetSettings,
        status: Status,
        nonces: Mapping[str, str],
        *,
        folder: str = "",
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("fleet:index:LocalHosts", name, None, opts)
        self._folder = folder
        self._settings = settings
        self._status = status
        self._nonces = nonces
        network = self._network()
        hosts = {host.name: self._host(host, network) for host in local.hosts(settings)}
        answers = {name: made.stdout for name, made in hosts.items()}
        self.captured = pulumi.Output.all(**{_NETWORK: network.stdout}, **answers).apply(_captured)
        self.ready = [*hosts.values(), self._simulator(network)]
        self.register_outputs({})

    def _network(self) -> command_provider.Command:
        control, jump = self._settings.local.link_ends
        request = {"bridge": self._settings.local.bridge, "link": {"control": control, "jump": jump}}
        return self._made("network", request, present=bool(self._status.get("network")))

    def _host(self, host: local.LocalHost, network: pulumi.Resource) -> command_provider.Command:
        known = self._status.get("hosts", {}).get(host.name, {})
        request = {
            "name": host.name,
            "address": host.address,
            "suite": host.suite,
            "login": host.login,
            "link": host.link,
        }
        return self._made("host", request, present=bool(known.get("running")), after=[network])

    def _simulator(self, network: pulumi.Resource) -> command_provider.Command:
        simulator = self._settings.local.simulator
        address = str(self._settings.local.bridge_interface.ip)
        options = {
            "--host": address,
            "--port": simulator.port,
            "--rpm": simulator.rpm,
            "--tpm": simulator.tpm,
            "--latency-ms": simulator.latency_ms,
        }
        request = {
            "name": "simulator",
            "argv": [
                ".venv/bin/ai-client",
                "simulate",
                *(str(word) for item in options.items() for word in item),
            ],
            "ready": {"address": address, "port": simulator.port},
        }
        running = bool(self._status.get("services", {}).get("simulator"))
        return self._made("service", request, present=running, after=[network])

    def _made(
        self,
        kind: str,
        request: Mapping[str, Any],
        *,
        present: bool,
        after: list[pulumi.Resource] | None = None,
    ) -> command_provider.Command:
        name = str(request.get("name", kind))
        stack = self._settings.stack
        resource = f"{kind}-{name}" if name != kind else kind
        return command(
            resource,
            create=child(_MODULE, kind, "up"),
            delete=child(_MODULE, kind, "down"),
            stdin=json.dumps({"fleet": stack, **request}, sort_keys=True),
            parent=self,
            drifted=not present,
            last_nonce=self._nonces.get(resource, ""),
            depends_on=after,
            folder=self._folder,
        )


def made(
    settings: FleetSettings,
    status: Status,
    nonces: Mapping[str, str],
    *,
    folder: str = "",
    opts: pulumi.ResourceOptions | None = None,
) -> LocalHosts | None:
    """The machines of a stack that has local hosts; None of another."""
    if not settings.has_local_hosts:
        return None
    return LocalHosts("local", settings, status, nonces, folder=folder, opts=opts)


def status(stack: str) -> Status:
    """What of a local fleet is there and runs, as this machine sees it now.

    Raises:
        NodeSourceError: the machine could not be asked.
    """
    argv = ["python3", "-m", _MODULE, "status"]
    request = json.dumps({"fleet": stack})
    asked = subprocess.run(
        argv, cwd=PROJECT, input=request, capture_output=True, text=True, timeout=60, check=False
    )
    if asked.returncode != 0:
        raise NodeSourceError(f"local hosts of {stack}", asked.stderr.strip(), "run 'make up' as root")
    answer: Status = json.loads(asked.stdout)
    return answer


def running(seen: Status) -> frozenset[str]:
    """Names of the hosts that run."""
    return frozenset(name for name, host in seen.get("hosts", {}).items() if host.get("running"))


def _captured(answers: dict[str, str]) -> Captured:
    """What the making of the hosts answered."""
    made = {name: json.loads(text) for name, text in answers.items() if text}
    network = made.pop(_NETWORK, {})
    return Captured(
        host_keys={name: tuple(answer["host_keys"]) for name, answer in made.items()},
        gateway_token_sha256=network.get("gateway_token_sha256", ""),
    )
