"""`ai-client serve`: the gateway in the foreground, as the service runs it."""

from __future__ import annotations

import argparse
import os
import sys

from ai_client.gateway.handover import detach
from ai_client.gateway.launch import Launch
from ai_client.gateway.service import serve
from ai_client.gateway.sockets import ListenError
from ai_client.gateway.sources import Sources
from ai_client.settings import ConfigError, KeyMissingError

# sysexits.h: EX_CONFIG, which a unit can name in RestartPreventExitStatus.
EXIT_CONFIG = 78


def run(options: argparse.Namespace) -> int:
    """Serve until told to stop: the exit code."""
    environment = dict(os.environ)
    detach(environment)
    launch = Launch.of(sys.orig_argv, sys.argv[0])
    sources = Sources(options.config, options.key_file, environment, launch)
    try:
        return serve(sources)
    except (ConfigError, KeyMissingError) as exc:
        print(exc, file=sys.stderr)
        return EXIT_CONFIG
    except ListenError as exc:
        print(exc, file=sys.stderr)
        return 1
    except EOFError:
        print(
            "the process that was to hand over ended before it did; start the service anew", file=sys.stderr
        )
        return 1
