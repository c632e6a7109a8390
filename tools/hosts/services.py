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
    """Whether the recorded process is there, in the bridge's namespace of today."""
    process = processes.read_process(service.process)
    return process is not None and process.is_running() and netns.holds(service.fleet.netns, process.pid)


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
    process = processes.read_process(service.process)

    def has_ended() -> bool:
        return process is None or not process.is_running()

    def is_ready() -> bool:
        return is_running(service) and (spec.ready is None or accepts(service.fleet.netns, spec.ready))

    processes.wait_until(lambda: has_ended() or is_ready(), timeout_s=READY_TIMEOUT_S)
    if has_ended():
        reason = "ended at once"
    elif not is_ready():
        where = "" if spec.ready is None else f" on {spec.ready.address}:{spec.ready.port}"
        reason = f"does not listen{where} after {READY_TIMEOUT_S:.0f} s"
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
