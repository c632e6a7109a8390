"""`service up` and `service down`: processes in the fleet's bridge namespace, such as the provider simulator."""

import shutil
import socket
from collections.abc import Callable

from tools.hosts import netns, processes
from tools.hosts.errors import HostsError
from tools.hosts.files import locked, read_record
from tools.hosts.inputs import Endpoint, ServiceSpec
from tools.hosts.places import PROJECT, FleetPlaces, ServicePlaces

READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
LOG_TAIL_LINES = 8

Say = Callable[[str], None]


def service_up(places: FleetPlaces, spec: ServiceSpec, say: Say) -> dict[str, object]:
    """Starts a service, or starts it anew where it shall run with other arguments."""
    service = places.service(spec.name)
    with locked(places.lock, shared=True, say=say), locked(service.lock, say=say):
        if not netns.exists(places.netns):
            raise HostsError(f"fleet {spec.fleet}", "has no network", "run: network up")
        record = read_record(service.process)
        if record is None or record.get("argv") != list(spec.argv) or not is_running(service):
            _start(service, spec)
        _await_ready(service, spec)
    say(f"service {spec.name}: up")
    return {"name": spec.name, "log": str(service.log)}


def service_down(places: FleetPlaces, name: str, say: Say) -> dict[str, object]:
    """Ends a service and removes its folder."""
    service = places.service(name)
    with locked(places.lock, shared=True, say=say), locked(service.lock, say=say):
        remove(service)
    say(f"service {name}: down")
    return {}


def remove(service: ServicePlaces) -> None:
    """Ends a service, whatever state it is in; the caller holds a lock."""
    processes.stop(service.process, cgroup=service.cgroup, deadline_s=STOP_TIMEOUT_S)
    if service.folder.exists():
        shutil.rmtree(service.folder)
    service.lock.unlink(missing_ok=True)


def recorded(places: FleetPlaces) -> list[str]:
    """Services that have a folder."""
    folder = places.folder / "services"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def is_running(service: ServicePlaces) -> bool:
    """Whether the recorded process is there."""
    return processes.is_recorded_running(service.process)


def _start(service: ServicePlaces, spec: ServiceSpec) -> None:
    processes.stop(service.process, cgroup=service.cgroup, deadline_s=STOP_TIMEOUT_S)
    service.folder.mkdir(parents=True, exist_ok=True)
    processes.start(
        ["nsenter", f"--net={netns.path_of(service.fleet.netns)}", "--", *spec.argv],
        cgroup=service.cgroup,
        log=service.log,
        cwd=PROJECT,
        record=service.process,
        facts={"argv": list(spec.argv)},
    )


def _await_ready(service: ServicePlaces, spec: ServiceSpec) -> None:
    def settled() -> bool:
        return not is_running(service) or spec.ready is None or accepts(service.fleet.netns, spec.ready)

    in_time = processes.wait_until(settled, timeout_s=READY_TIMEOUT_S)
    if not is_running(service):
        reason = "ended at once"
    elif not in_time and spec.ready is not None:
        reason = f"does not listen on {spec.ready.address}:{spec.ready.port} after {READY_TIMEOUT_S:.0f} s"
    else:
        return
    tail = " | ".join(service.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
    raise HostsError(f"service {spec.name}", f"{reason}; its log ends with: {tail}", f"see {service.log}")


def accepts(namespace: str | None, endpoint: Endpoint, *, timeout_s: float = 1.0) -> bool:
    """Whether a connection from within the namespace is taken."""
    try:
        with netns.inside(namespace):
            connection = socket.create_connection((str(endpoint.address), endpoint.port), timeout=timeout_s)
    except OSError:
        return False
    connection.close()
    return True
