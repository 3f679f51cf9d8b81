"""`python -m benchmarks websocket`: what small messages cost on their way through."""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .bench import bench
from .goals import Goal
from .measure import Effort, Result, notes, run_rounds
from .peers import GatewayPeer, Peer
from .peers.echo import Echo
from .peers.nginx import NginxWebSocket
from .process import NotInstalled
from .proxy import GATEWAY, add_only, choose, start_all
from .table import number, render, times

UNIT = Echo.name
COLUMNS = ("subject", "messages/s", "CPU us/message", "+- %", f"x {UNIT}", "p50 ms", "p99 ms", "errors")
DOCUMENT: Mapping[str, object] = {
    "routes": [{"name": "all", "path": "/*", "upstream": "origin", "websocket": True}]
}


@dataclass(frozen=True, slots=True)
class Messages:
    """So many messages a second, in all."""

    port: int
    rate: int

    def command(self, seconds: float, connections: int) -> list[str]:
        program = str(Path(__file__).with_name("messages.py"))
        words = ["--rate", str(self.rate), "--seconds", str(seconds), "--connections", str(connections)]
        return [sys.executable, program, str(self.port), *words]


def all_peers() -> Sequence[Peer]:
    return (GatewayPeer(document=DOCUMENT), Echo(), NginxWebSocket())


def add_options(parser: argparse.ArgumentParser) -> None:
    add_only(parser, all_peers())
    parser.add_argument(
        "--messages", type=int, default=10_000, help="messages per second (default: %(default)s)"
    )


def row(result: Result, unit: Result | None) -> list[str]:
    return [
        result.name,
        number(result.rate),
        number(result.cpu_us, 1),
        number(result.spread * 100),
        times(result.cpu_ratio(unit)) if unit else "-",
        number(result.median(lambda one: one.report.p50_ms), 2),
        number(result.median(lambda one: one.report.p99_ms), 2),
        number(result.errors),
    ]


def goals(results: Mapping[str, Result], wanted: int) -> list[Goal]:
    gateway, unit = results.get(GATEWAY), results.get(UNIT)
    ratio = gateway.cpu_ratio(unit) if gateway and unit else math.nan
    return [
        Goal(f"CPU per message of {GATEWAY} over {UNIT}", ratio, 2.0),
        Goal(
            f"messages/s through {GATEWAY}, of those that were due", share(gateway, wanted), 0.98, "at least"
        ),
    ]


def share(result: Result | None, wanted: int) -> float:
    return result.rate / wanted if result and not result.errors else math.nan


def main(options: argparse.Namespace, effort: Effort) -> tuple[list[Goal], bool]:
    """Print the table. The goals, and whether everything that is installed ran."""
    peers = choose(options.only, all_peers())
    with bench() as run:
        upstream = run.start(Echo())
        subjects, absent = start_all(run, peers, upstream, lambda port: Messages(port, options.messages))
        results = run_rounds(subjects, upstream, run.cores, effort)
    unit = results.get(UNIT)
    rows = [row(one, unit) for one in results.values()]
    print(render(COLUMNS, [*rows, *([name, str(problem)] for name, problem in absent.items())]))
    for note in notes(list(results.values())):
        print(f"note: {note}")
    return goals(results, options.messages), all(
        isinstance(reason, NotInstalled) for reason in absent.values()
    )
