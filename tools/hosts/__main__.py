"""`python3 -m tools.hosts VERB`: JSON on stdin, one line of JSON on stdout, progress on stderr."""

import argparse
import errno
import json
import os
import sys
from collections.abc import Callable, Sequence

from tools.hosts import inputs
from tools.hosts.commands import search_path
from tools.hosts.errors import HostsError
from tools.hosts.image import ensure_image
from tools.hosts.machines import host_down, host_up
from tools.hosts.network import network_down, network_up
from tools.hosts.places import FleetPlaces, fleet_places
from tools.hosts.prerequisites import TO_MAKE, TO_REMOVE, require_programs, require_root
from tools.hosts.purge import purge
from tools.hosts.services import service_down, service_up
from tools.hosts.status import status
from tools.hosts.suites import DEFAULT

Answer = dict[str, object]


def main(argv: Sequence[str]) -> int:
    """Runs one verb; 0 where it is done, 1 where it can't be."""
    # What is laid into a host must not follow the caller's habits.
    os.umask(0o022)
    try:
        print(json.dumps(_run(_arguments(argv))))
    except HostsError as error:
        say(str(error).replace("\n", " "))
        return 1
    except OSError as error:
        say(_explained(error))
        return 1
    except KeyboardInterrupt:
        say("interrupted: stopped between two steps; run again to finish, or purge")
        return 1
    return 0


def say(text: str) -> None:
    """One line of progress, for people."""
    print(f"hosts: {text}", file=sys.stderr, flush=True)


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python3 -m tools.hosts", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    image = verbs.add_parser("image", help="make the base image")
    image.add_argument("--suite", default=DEFAULT)
    for verb in ("network", "host", "service"):
        verbs.add_parser(verb, help=f"make or remove a {verb}").add_argument("way", choices=("up", "down"))
    verbs.add_parser("status", help="tell what of a fleet is there")
    verbs.add_parser("purge", help="remove everything of a fleet")
    return parser.parse_args(argv)


def _run(given: argparse.Namespace) -> Answer:
    if given.verb == "status":
        return status(_places(inputs.read(inputs.FleetName, _order()).fleet))
    if given.verb == "image":
        suite = inputs.suite_name(given.suite)
        require_root()
        return {"image": str(ensure_image(suite, say))}
    act = _parsed(f"{given.verb} {getattr(given, 'way', '')}".strip(), _order())
    require_root()
    programs = TO_MAKE if getattr(given, "way", "down") == "up" else TO_REMOVE
    require_programs(programs, say, path=search_path(os.environ))
    return act()


def _parsed(verb: str, text: str) -> Callable[[], Answer]:
    """What a verb does with its input; the input is checked before anything else."""
    if verb == "network up":
        network = inputs.read(inputs.NetworkSpec, text)
        return lambda: network_up(_places(network.fleet), network, say)
    if verb == "host up":
        host = inputs.read(inputs.HostSpec, text)
        return lambda: host_up(_places(host.fleet), host, say)
    if verb == "service up":
        service = inputs.read(inputs.ServiceSpec, text)
        return lambda: service_up(_places(service.fleet), service, say)
    if verb in ("host down", "service down"):
        named = inputs.read(inputs.HostName, text)
        down = host_down if verb == "host down" else service_down
        return lambda: down(_places(named.fleet), named.name, say)
    fleet = inputs.read(inputs.FleetName, text).fleet
    if verb == "network down":
        return lambda: network_down(_places(fleet), fleet, say)
    return lambda: purge(_places(fleet), say)


def _order() -> str:
    return sys.stdin.buffer.read().decode(errors="replace")


def _places(fleet: str) -> FleetPlaces:
    return fleet_places(fleet, os.environ)


def _explained(error: OSError) -> str:
    where = error.filename or "local hosts"
    if error.errno == errno.ENOSPC:
        return f"{where}: no space left on the disk; free some and run again"
    return f"{where}: {error.strerror or error}; see that root may write there"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
