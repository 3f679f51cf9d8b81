"""`python -m benchmarks proxy`: a plain proxy beside its peers."""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence

from .bench import Bench, bench
from .goals import Goal
from .load import Load, Request
from .measure import Effort, Result, Subject, notes, run_rounds
from .peers import Peer, all_peers
from .process import NotInstalled, NotRunning, Process
from .table import number, render, times

GATEWAY, UNIT, OBVIOUS = "asgi-gateway", "uvicorn by itself", "starlette + httpx"
CACHED = "asgi-gateway, a cache hit"
UNDER, UNDER_UNIT = "asgi-gateway under granian", "granian by itself"
LESS_THAN = ("envoy", "caddy", "fastify proxy")
"""Peers whose CPU per request is a bound too."""
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
    add_only(parser, all_peers())
    parser.add_argument(
        "--body-bytes", type=int, default=1024, help="size of the answer (default: %(default)s)"
    )


def add_only(parser: argparse.ArgumentParser, peers: Sequence[Peer]) -> None:
    """The option that `choose` takes."""
    names = ", ".join(peer.name for peer in peers)
    parser.add_argument("--only", metavar="NAME,NAME", help=f"measure only these: {names}")


def choose(only: str | None, there: Sequence[Peer]) -> Sequence[Peer]:
    """The peers that were asked for; a part of a name is enough."""
    wanted = [name.strip() for name in (only or "").split(",") if name.strip()]
    peers = [peer for peer in there if not wanted or any(name in peer.name for name in wanted)]
    unknown = [name for name in wanted if not any(name in peer.name for peer in peers)]
    if unknown:
        raise NotRunning(f"no subject is called {', '.join(unknown)}")
    return peers


def start_all(
    run: Bench, peers: Sequence[Peer], upstream: Process, work: Callable[[int], Load] = Request
) -> tuple[list[Subject], dict[str, NotRunning]]:
    """The subjects that run, with what is done to their ports; and for the others the reason why not."""
    subjects: list[Subject] = []
    absent: dict[str, NotRunning] = {}
    for peer in peers:
        try:
            process = run.start(peer, upstream)
            subjects.append(Subject(peer.name, process, work(process.port)))
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


def show(peers: Sequence[Peer], results: Mapping[str, Result], absent: Mapping[str, NotRunning]) -> None:
    """Print the table, and what has to be known about it."""
    unit = results.get(UNIT)
    rows = [
        row(results[peer.name], unit) if peer.name in results else [peer.name, str(absent[peer.name])]
        for peer in peers
    ]
    print(render(COLUMNS, rows))
    for note in notes(list(results.values())):
        print(f"note: {note}")


def goals(results: Mapping[str, Result]) -> list[Goal]:
    def cpu(name: str, base: str, bound: float) -> Goal:
        here, unit = results.get(name), results.get(base)
        ratio = here.cpu_ratio(unit) if here and unit else math.nan
        return Goal(f"CPU per request of {name} over {base}", ratio, bound)

    gateway, obvious = results.get(GATEWAY), results.get(OBVIOUS)
    rate = gateway.rate_ratio(obvious) if gateway and obvious else math.nan
    return [
        cpu(GATEWAY, UNIT, 2.0),
        *(cpu(GATEWAY, name, 1.0) for name in LESS_THAN),
        cpu(UNDER, UNDER_UNIT, 1.5),
        cpu(CACHED, UNIT, 1.3),
        Goal(f"requests/s of {GATEWAY} over {OBVIOUS}", rate, 40, "at least"),
    ]


def main(options: argparse.Namespace, effort: Effort) -> tuple[list[Goal], bool]:
    """Print the table. The goals, and whether everything that is installed ran."""
    peers = choose(options.only, all_peers())
    with bench(options.body_bytes) as run:
        upstream = run.start_upstream()
        subjects, absent = start_all(run, peers, upstream)
        results = run_rounds(subjects, upstream, run.cores, effort)
    show(peers, results, absent)
    return goals(results), all(isinstance(reason, NotInstalled) for reason in absent.values())
