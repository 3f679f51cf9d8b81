"""`python -m benchmarks NAME`: prints one table, and whether the goals are met."""

import argparse
import signal
import sys
from collections.abc import Sequence
from types import FrameType, ModuleType

from . import (
    bodies,
    chain,
    components,
    connections,
    growth,
    profile,
    proxy,
    reload,
    routing,
    start,
    websocket,
)
from .machine import machine
from .measure import Effort
from .process import NotRunning


def commands() -> dict[str, ModuleType]:
    return {
        "proxy": proxy,
        "connections": connections,
        "bodies": bodies,
        "websocket": websocket,
        "start": start,
        "chain": chain,
        "components": components,
        "routing": routing,
        "reload": reload,
        "growth": growth,
        "profile": profile,
    }


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = parser.add_subparsers(dest="command", required=True)
    for name, module in commands().items():
        about = (module.__doc__ or "").partition(": ")[2]
        command = names.add_parser(name, help=about, description=about)
        command.add_argument(
            "--seconds", type=int, default=3, help="length of a round (default: %(default)s)"
        )
        command.add_argument(
            "--rounds", type=int, default=5, help="rounds per subject (default: %(default)s)"
        )
        command.add_argument(
            "--connections", type=int, default=64, help="connections of the load (default: %(default)s)"
        )
        command.add_argument("--check", action="store_true", help="exit code 1 when a goal is not met")
        module.add_options(command)
    return parser.parse_args(arguments)


def interrupted(number: int, frame: FrameType | None) -> None:
    """Leave through the blocks that end what was started."""
    raise SystemExit(128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    """0; 1 when --check was given and a goal is not met; 2 when something could not run."""
    options = read_options(arguments)
    signal.signal(signal.SIGTERM, interrupted)
    effort = Effort(options.seconds, options.rounds, options.connections)
    print(machine())
    try:
        goals, complete = commands()[options.command].main(options, effort)
    except NotRunning as problem:
        print(f"cannot run: {problem}", file=sys.stderr)
        return 2
    for goal in goals:
        print(goal)
    if not complete:
        return 2
    return 1 if options.check and not all(goal.met for goal in goals) else 0


if __name__ == "__main__":
    sys.exit(main())
