"""`python -m benchmarks profile`: where the gateway spends its time as a plain proxy."""

import argparse
import pstats
import signal
from collections.abc import Sequence
from pathlib import Path
from subprocess import TimeoutExpired

from .bench import bench
from .goals import Goal
from .load import Request
from .measure import Effort, Subject, run_round
from .peers import GatewayPeer, Place
from .process import NotRunning, Process


class ProfiledGateway(GatewayPeer):
    """Under cProfile, which makes it several times slower: read ranks, not times."""

    def command(self, program: str, place: Place) -> Sequence[str]:
        self.file = place.folder / "profile"
        return [program, "-m", "cProfile", "-o", str(self.file), *super().command(program, place)[1:]]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lines", type=int, default=40, help="functions to print (default: %(default)s)")


def end(process: Process, file: Path) -> pstats.Stats:
    """Interrupt the program, so that it leaves its profile behind."""
    process.program.send_signal(signal.SIGINT)
    try:
        process.program.wait(20)
        return pstats.Stats(str(file))
    except (TimeoutExpired, OSError, EOFError) as error:
        raise NotRunning(f"the gateway left no profile: {error}") from error


def main(options: argparse.Namespace, effort: Effort) -> tuple[list[Goal], bool]:
    """Print the functions with the most time of their own, in seconds. There is no goal."""
    peer = ProfiledGateway()
    with bench() as run:
        upstream = run.start_upstream()
        process = run.start(peer, upstream)
        seen = run_round(Subject("gateway", process, Request(process.port)), upstream, run.cores, effort)
        print(f"{seen.report.requests:,} requests, {seen.report.errors:,} errors")
        end(process, peer.file).sort_stats("tottime").print_stats(options.lines)
    return [], True
