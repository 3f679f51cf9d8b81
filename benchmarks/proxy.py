"""`python -m benchmarks proxy`: a plain proxy beside its peers."""

import argparse
import math
from collections.abc import Mapping, Sequence

from .bench import Bench, bench
from .goals import Goal
from .load import Request
from .measure import Effort, Result, Subject, notes, run_rounds
from .peers import Peer, all_peers
from .process import NotInstalled, NotRunning, Process
from .table import number, render, times

GATEWAY, UNIT, OBVIOUS = "asgi-gateway", "uvicorn by itself", "starlette + httpx"
CACHED = "asgi-gateway, a cache hit"
COLUMNS = (
    "subject",
    "requests/s",
    "CPU us/request",
    "+- %",
    f"CPU, x {UNIT}",
    "p50 ms",
    "p99 ms",
    "errors",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(peer.name for peer in all_peers())
    parser.add_argument("--only", metavar="NAME,NAME", help=f"measure only these: {names}")
    parser.add_argument(
        "--body-bytes", type=int, default=1024, help="size of the answer (default: %(default)s)"
    )


def choose(only: str | None) -> Sequence[Peer]:
    """The peers that were asked for; a part of a name is enough."""
    wanted = [name.strip() for name in (only or "").split(",") if name.strip()]
    peers = [peer for peer in all_peers() if not wanted or any(name in peer.name for name in wanted)]
    unknown = [name for name in wanted if not any(name in peer.name for peer in peers)]
    if unknown:
        raise NotRunning(f"no subject is called {', '.join(unknown)}")
    return peers


def start_all(
    run: Bench, peers: Sequence[Peer], upstream: Process
) -> tuple[list[Subject], dict[str, NotRunning]]:
    """The subjects that run, and for the others the reason why not."""
    subjects: list[Subject] = []
    absent: dict[str, NotRunning] = {}
    for peer in peers:
        try:
            process = run.start(peer, upstream)
            subjects.append(Subject(peer.name, process, Request(process.port)))
        except NotRunning as problem:
            absent[peer.name] = problem
    return subjects, absent


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


def goals(results: Mapping[str, Result]) -> list[Goal]:
    gateway, cached, unit, obvious = (results.get(name) for name in (GATEWAY, CACHED, UNIT, OBVIOUS))
    cpu = gateway.cpu_ratio(unit) if gateway and unit else math.nan
    hit = cached.cpu_ratio(unit) if cached and unit else math.nan
    rate = gateway.rate_ratio(obvious) if gateway and obvious else math.nan
    return [
        Goal(f"CPU per request of {GATEWAY} over {UNIT}", cpu, 2.2),
        Goal(f"CPU per request of {CACHED} over {UNIT}", hit, 1.35),
        Goal(f"requests/s of {GATEWAY} over {OBVIOUS}", rate, 20, "at least"),
    ]


def main(options: argparse.Namespace, effort: Effort) -> tuple[list[Goal], bool]:
    """Print the table. The goals, and whether everything that is installed ran."""
    peers = choose(options.only)
    with bench(options.body_bytes) as run:
        upstream = run.start_upstream()
        subjects, absent = start_all(run, peers, upstream)
        results = run_rounds(subjects, upstream, run.cores, effort)
    unit = results.get(UNIT)
    rows = [
        row(results[peer.name], unit) if peer.name in results else [peer.name, str(absent[peer.name])]
        for peer in peers
    ]
    print(render(COLUMNS, rows))
    for note in notes(list(results.values())):
        print(f"note: {note}")
    return goals(results), all(isinstance(reason, NotInstalled) for reason in absent.values())
