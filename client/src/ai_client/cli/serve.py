"""`ai-client serve`: the gateway in the foreground, as the service runs it, or for a user without a configuration."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ai_client.cli.host import DEFAULT_CONFIG, config_of
from ai_client.configure.launch import Launch
from ai_client.configure.sources import Overrides, Sources
from ai_client.gateway.http.sockets import ListenError, Places
from ai_client.gateway.process.handover import HandoverError, detach
from ai_client.gateway.process.service import run_service
from ai_client.settings import ConfigError, KeyMissingError

# sysexits.h: EX_CONFIG, which a unit can name in RestartPreventExitStatus.
EXIT_CONFIG = 78


def run(options: argparse.Namespace) -> int:
    """Serve until told to stop: the exit code."""
    environment = dict(os.environ)
    detach(environment)
    launch = Launch.of(sys.orig_argv, sys.argv[0])
    overrides = Overrides(base_url=options.base_url, socket=options.socket, port=options.port)
    sources = Sources(config_of(options), options.key_file, environment, launch, overrides)
    try:
        return _serve(sources)
    except (ConfigError, KeyMissingError) as exc:
        print(exc, file=sys.stderr)
        return EXIT_CONFIG
    except ListenError as exc:
        print(f"{exc} (--port and --socket name others)", file=sys.stderr)
        return 1
    except HandoverError as exc:
        print(exc, file=sys.stderr)
        return 1
    except EOFError:
        print(
            "the process that should have handed over ended before it did; start the service again",
            file=sys.stderr,
        )
        return 1


def _serve(sources: Sources) -> int:
    import uvloop  # noqa: PLC0415  only `serve` needs it, and it costs start-up time

    if sources.config_path is not None:
        return uvloop.run(run_service(sources, announce=_announce))
    return uvloop.run(_serve_one_user(sources))


def _announce(places: Places) -> None:
    """Where it listens."""
    tcp = f" and http://{places.tcp}/v1" if places.tcp else ""
    print(f"listening on {places.unix}{tcp}")
    if places.metrics:
        print(f"status page and metrics: http://{places.metrics}/")
    sys.stdout.flush()


async def _serve_one_user(sources: Sources) -> int:
    """Without a configuration: in the user's own folders and, where there is no key either, by the simulator."""
    from ai_client.configure import personal  # noqa: PLC0415  hosts that were set up don't need it

    try:
        place = personal.prepare(sources.environment, is_simulated=_has_no_key(sources))
    except OSError as exc:
        remedy = (
            "set HOME, XDG_STATE_HOME and XDG_CACHE_HOME to folders of yours, or name a file with --config"
        )
        print(f"{exc.filename} can't be made ({exc.strerror}); {remedy}", file=sys.stderr)
        return EXIT_CONFIG
    sources = replace(
        sources,
        environment={**sources.environment, "STATE_DIRECTORY": str(place.state)},
        overrides=replace(sources.overrides, tenants=(place.tenant,)),
    )
    announce = _announcer(
        place.token_file, base_url=None if place.is_simulated else sources.read()[0].api.base_url
    )
    if not place.is_simulated:
        return await run_service(sources, announce=announce)
    from ai_client.testing import Simulator  # noqa: PLC0415  only here is it needed

    async with Simulator() as provider:
        overrides = replace(sources.overrides, base_url=provider.base_url, key=personal.SIMULATED_KEY)
        return await run_service(replace(sources, overrides=overrides), announce=announce)


def _has_no_key(sources: Sources) -> bool:
    if sources.key_file is not None or sources.overrides.base_url is not None:
        return False
    try:
        sources.read_keys()
    except KeyMissingError as exc:
        if exc.is_absent:
            return True
        raise
    return False


def _program(started: str) -> str:
    """The program's name as a shell takes it: its path where `PATH` does not lead to it."""
    name = Path(started).name
    if name == "__main__.py":
        return f"{sys.executable} -m ai_client.cli"
    found = shutil.which(name)
    return name if found and Path(found).samefile(started) else started


def _announcer(token_file: Path, *, base_url: str | None) -> Callable[[Places], None]:
    def announce(places: Places) -> None:
        _announce(places)
        print(f"no {DEFAULT_CONFIG}: using defaults, and files below {token_file.parent}")
        if base_url is None:
            print("no key: answers come from the built-in simulator; set AI_CLIENT_API_KEY for real ones")
        else:
            print(f"provider: {base_url}")
        print(f"\ntry:  {_program(sys.argv[0])} chat 'Say hello.'")
        if places.tcp:
            print(f"      export OPENAI_BASE_URL=http://{places.tcp}/v1 OPENAI_API_KEY=$(cat {token_file})")
        sys.stdout.flush()

    return announce
