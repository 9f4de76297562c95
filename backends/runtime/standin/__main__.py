"""`python -m backends.runtime.standin`: serve until interrupted."""

from __future__ import annotations

import argparse
import shlex
import sys
import threading

from backends.runtime.standin import Settings, StandIn
from backends.runtime.standin.settings import PLANS
from circuits.errors import QrunError


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted; the variables to export go to stdout."""
    defaults = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m backends.runtime.standin",
        description="A local stand-in for IBM's Runtime service. Prints the environment variables to export.",
    )
    parser.add_argument("--device", action="append", help="a fake device; may be given more than once", metavar="NAME")
    parser.add_argument("--plan", choices=PLANS, default=defaults.plan, help="of the instance (%(default)s)")
    parser.add_argument("--port", type=int, default=0, help="0 for any that is free")
    parser.add_argument("--queue", type=float, default=0.0, help="seconds that a job waits", metavar="S")
    parser.add_argument("--late", type=float, default=0.0, help="seconds before a job shows in lists", metavar="S")
    parser.add_argument("--token", help="the API key to take; by default one of its own")
    given = parser.parse_args(arguments)
    settings = Settings(plan=given.plan, queue=given.queue, late=given.late)
    if given.device:
        settings.devices = tuple(given.device)
    if given.token:
        settings.token = given.token
    try:
        service = StandIn(settings, port=given.port)
    except (QrunError, OverflowError) as error:
        print(f"error: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 2)
    with service:
        for name, value in service.environment().items():
            print(f"export {name}={shlex.quote(value)}")
        print(f"serving {', '.join(settings.devices)} on {service.url}; Ctrl-C ends it", file=sys.stderr, flush=True)
        sys.stdout.flush()
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
