"""`python -m benchmarks bodies`: what big answers and uploads cost."""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .bench import bench
from .goals import Goal
from .measure import Effort, Result, notes, run_rounds
from .peers import GatewayPeer, Peer
from .peers.nginx import NginxBodies, NginxLargeBuffers, NginxStore
from .process import NotInstalled
from .proxy import GATEWAY, add_only, choose, start_all
from .table import number, render, times

MIB = 1 << 20
UNIT = "nginx"
COLUMNS = ("subject", "MiB/s", "MiB per CPU s", "+- %", f"per CPU s, x {UNIT}", "bodies", "errors")


@dataclass(frozen=True, slots=True)
class Transfer:
    """One body, again and again, on a few connections."""

    port: int
    size: int
    upload: bool

    def command(self, seconds: float, connections: int) -> list[str]:
        program = str(Path(__file__).with_name("transfer.py"))
        path = "/upload" if self.upload else f"/answer/{self.size}"
        words = ["--bytes", str(self.size), "--seconds", str(seconds), "--connections", str(connections)]
        return [sys.executable, program, str(self.port), path, *words, *(["--upload"] if self.upload else [])]


def all_peers() -> Sequence[Peer]:
    return (GatewayPeer(), NginxBodies(), NginxLargeBuffers())


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(connections=4)
    add_only(parser, all_peers())
    parser.add_argument(
        "--mib",
        type=lambda text: [int(size) for size in text.split(",")],
        default=[1, 100],
        metavar="N,N",
        help="sizes of the bodies in MiB (default: 1,100)",
    )


def title(size: int, upload: bool) -> str:
    return f"{size} MiB {'upload' if upload else 'answer'}"


def row(name: str, size: int, result: Result, unit: Result | None) -> list[str]:
    return [
        name,
        number(size * result.rate),
        number(size / result.cpu_us * 1e6 if result.cpu_us else math.nan),
        number(result.spread * 100),
        times(unit.cpu_ratio(result)) if unit else "-",
        number(sum(one.report.requests for one in result.rounds)),
        number(result.errors),
    ]


def main(options: argparse.Namespace, effort: Effort) -> tuple[list[Goal], bool]:
    """Print the table. A goal for each kind of body, and whether everything that is installed ran."""
    peers = choose(options.only, all_peers())
    kinds = [(size, upload) for size in options.mib for upload in (False, True)]
    rows: list[list[str]] = []
    goals: list[Goal] = []
    results: list[Result] = []
    with bench() as run:
        upstream = run.start(NginxStore(options.mib))
        subjects, absent = start_all(run, peers, upstream)
        for size, upload in kinds:
            work = [replace(one, work=Transfer(one.process.port, size * MIB, upload)) for one in subjects]
            seen = run_rounds(work, upstream, run.cores, effort)
            unit, gateway = seen.get(UNIT), seen.get(GATEWAY)
            about = title(size, upload)
            rows += [row(f"{about}: {name}", size, one, unit) for name, one in seen.items()]
            ratio = unit.cpu_ratio(gateway) if gateway and unit and not gateway.errors else math.nan
            goals.append(Goal(f"{about}, bytes per CPU s of {GATEWAY} over {UNIT}", ratio, 0.5, "at least"))
            results += [replace(one, name=f"{about}: {name}") for name, one in seen.items()]
    rows += [[name, str(problem)] for name, problem in absent.items()]
    print(render(COLUMNS, rows))
    for note in notes(results):
        print(f"note: {note}")
    return goals, all(isinstance(reason, NotInstalled) for reason in absent.values())
