"""The simulator's own routes, by which tests and people tell it what to do."""

from __future__ import annotations

import json
from typing import Any, Protocol

from ai_client.testing import faults, replies
from ai_client.testing.faults import Fault, FaultPlan
from ai_client.testing.wire import ReceivedRequest, Responder

_JSON = ("content-type", "application/json")


class Controlled(Protocol):
    """What of a simulator can be told."""

    faults: FaultPlan
    refused_fingerprints: set[str]

    def stats(self) -> dict[str, Any]: ...

    def check(self, fault: Fault) -> None: ...


def control(simulator: Controlled, request: ReceivedRequest, out: Responder) -> None:
    """`GET /control/stats`; `POST /control/faults` {fault, count, path, model}; `DELETE /control/faults`;
    `POST /control/keys` {refused: [fingerprint]}, the keys that have been revoked.
    """
    if request.path == "/control/stats":
        out.send(200, [_JSON], replies.encode(simulator.stats()))
    elif request.path == "/control/faults" and request.method == "DELETE":
        simulator.faults.clear()
        out.send(204, [], b"")
    elif request.path == "/control/keys" and request.method == "POST":
        try:
            simulator.refused_fingerprints = {str(name) for name in json.loads(request.body)["refused"]}
        except (ValueError, KeyError, TypeError) as exc:
            out.send(400, [_JSON], replies.encode({"error": f"can't read the fingerprints: {exc}"}))
        else:
            out.send(204, [], b"")
    elif request.path == "/control/faults" and request.method == "POST":
        try:
            asked = json.loads(request.body)
            fault = faults.parse(asked["fault"])
            simulator.check(fault)
            count = int(asked.get("count", 1))
            simulator.faults.add(fault, count=count, path=asked.get("path"), model=asked.get("model"))
        except (ValueError, KeyError, TypeError) as exc:
            out.send(400, [_JSON], replies.encode({"error": f"can't read the fault: {exc}"}))
        else:
            out.send(204, [], b"")
    else:
        out.send(404, [_JSON], replies.encode({"error": "no such control route"}))
