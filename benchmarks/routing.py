"""`python -m benchmarks routing`: whether many routes cost more than few."""

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from asgi_gateway.config import GatewayConfig
from asgi_gateway.gateway import Gateway
from asgi_gateway.routing import Entry, Pattern, Table

from .bench import bench
from .goals import Goal
from .load import Request
from .measure import Effort, Result, Subject, notes, run_rounds
from .peers import GatewayPeer
from .process import NotRunning
from .table import number, render

KINDS: Mapping[str, tuple[str, str]] = {
    "exact": ("/exact-{}/items", "/exact-{}/items"),
    "variable": ("/variable-{}/{{id}}/items", "/variable-{}/42/items"),
    "wildcard": ("/wildcard-{}/*", "/wildcard-{}/any/thing"),
}
"""Of each kind: the path of a route, and of a request that it serves; a number goes in."""
MISS = "/nobody-{}/items"
SAMPLE = 1000
"""Requests of one timed run."""
EVERYWHERE = "all in turn"
"""The one measurement that reaches far into memory: it shows the processor's cache more than the search."""
COLUMNS = ("routes", "validate ms", "compile ms", *(f"{kind} ns" for kind in (*KINDS, "miss", EVERYWHERE)))
SOCKET_COLUMNS = ("routes", "requests/s", "CPU us/request", "p99 ms", "errors")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--routes",
        type=lambda text: [int(count) for count in text.split(",")],
        default=[10, 1000, 10_000],
        metavar="N,N",
        help="sizes of the table (default: 10,1000,10000)",
    )
    parser.add_argument("--in-process", action="store_true", help="leave out the load over the socket")


def paths(count: int) -> list[str]:
    """The paths of `count` routes, the kinds in turn."""
    patterns = [pattern for pattern, _ in KINDS.values()]
    return [patterns[index % len(patterns)].format(index // len(patterns)) for index in range(count)]


def requests(kind: str, count: int, different: int) -> list[str]:
    """Paths of requests of one kind, for so many different routes, spread over a table of `count` routes."""
    path = KINDS[kind][1] if kind in KINDS else MISS
    there = count // len(KINDS)
    return [path.format(index % different * there // different) for index in range(SAMPLE)]


def samples(count: int, different: int) -> dict[str, list[str]]:
    """What a table is asked for, by column. Each size is asked for the same number of different routes."""
    asked = {kind: requests(kind, count, different) for kind in (*KINDS, "miss")}
    everywhere = [requests(kind, count, min(SAMPLE, count // len(KINDS))) for kind in KINDS]
    return {**asked, EVERYWHERE: [path for paths in zip(*everywhere, strict=True) for path in paths]}


def document(count: int) -> dict[str, object]:
    routes = [
        {"name": f"route-{index}", "path": path, "upstream": "origin"}
        for index, path in enumerate(paths(count))
    ]
    return {"routes": routes}


@dataclass(frozen=True, slots=True)
class Timing:
    """What one size of the table costs."""

    routes: int
    validate_ms: float
    compile_ms: float
    match_ns: Mapping[str, float]
    """Of one match, median of the rounds, by kind."""


def match_ns(table: Table[None], wanted: Sequence[str]) -> float:
    """Nanoseconds of one match, over all these paths."""
    scope = {"type": "http", "headers": [], "query_string": b""}
    match = table.match
    begin = time.perf_counter_ns()
    for path in wanted:
        match("GET", "localhost", path, scope)
    return (time.perf_counter_ns() - begin) / len(wanted)


def compile_ms(count: int) -> tuple[float, float]:
    """Milliseconds until a configuration is validated, and until it is a gateway."""
    whole = {"upstreams": {"origin": {"targets": ["http://127.0.0.1:9"]}}, **document(count)}
    begin = time.perf_counter()
    config = GatewayConfig.model_validate(whole)
    validated = time.perf_counter()
    Gateway(config)
    return (validated - begin) * 1e3, (time.perf_counter() - validated) * 1e3


def time_tables(counts: Sequence[int], rounds: int) -> list[Timing]:
    """Every size in turn, round by round, so that noise hits all sizes."""
    tables = {count: build(count) for count in counts}
    asked = {count: samples(count, min(counts) // len(KINDS)) for count in counts}
    for count, table in tables.items():
        expect(table, asked[count])
    turns = [
        {
            count: {kind: match_ns(table, paths) for kind, paths in asked[count].items()}
            for count, table in tables.items()
        }
        for _ in range(rounds)
    ]
    compile_ms(min(counts))  # what is imported only now is no part of the first figure
    return [
        Timing(
            count,
            *compile_ms(count),
            {kind: statistics.median(turn[count][kind] for turn in turns) for kind in asked[count]},
        )
        for count in counts
    ]


def build(count: int) -> Table[None]:
    return Table([Entry(name=path, pattern=Pattern(path), payload=None) for path in paths(count)])


def expect(table: Table[None], asked: Mapping[str, Sequence[str]]) -> None:
    """A table that finds the wrong thing is not timed."""
    for kind, wanted in asked.items():
        for path in wanted:
            found = table.match(
                "GET", "localhost", path, {"type": "http", "headers": [], "query_string": b""}
            )
            name = found[0].name if found else ""
            if not name.startswith("/" + path.split("/")[1] + "/") and kind != "miss":
                raise AssertionError(f"{path} found {name or 'no route'}")


def row(timing: Timing) -> list[str]:
    figures = [number(timing.validate_ms, 1), number(timing.compile_ms, 1)]
    return [f"{timing.routes:,}", *figures, *(number(ns) for ns in timing.match_ns.values())]


def socket_row(result: Result) -> list[str]:
    return [
        result.name,
        number(result.rate),
        number(result.cpu_us, 1),
        number(result.median(lambda one: one.report.p99_ms), 2),
        number(result.errors),
    ]


def over_the_socket(counts: Sequence[int], effort: Effort) -> list[Result]:
    """CPU per request of the smallest and the largest table: all its variable routes in turn."""
    subjects = []
    with bench() as run:
        upstream = run.start_upstream()
        for count in counts:
            path = KINDS["variable"][1]
            process = run.start(GatewayPeer(f"{count:,}", document(count)), upstream, path.format(0))
            request = Request(process.port, path, paths=count // len(KINDS))
            subjects.append(Subject(process.name, process, request))
        return list(run_rounds(subjects, upstream, run.cores, effort).values())


def main(options: argparse.Namespace, effort: Effort) -> tuple[list[Goal], bool]:
    """Print the table. The goals, and whether everything ran."""
    counts = sorted(set(options.routes))
    if len(counts) < 2 or counts[0] < len(KINDS):
        raise NotRunning(f"--routes needs two sizes or more, none below {len(KINDS)}")
    small, *_, large = timings = time_tables(counts, effort.rounds)
    print(render(COLUMNS, [row(timing) for timing in timings]))
    ratio = max(large.match_ns[kind] / small.match_ns[kind] for kind in (*KINDS, "miss"))
    goals = [Goal(f"slowest kind of match, {large.routes:,} routes over {small.routes:,}", ratio, 1.5)]
    if not options.in_process:
        few, many = results = over_the_socket([counts[0], counts[-1]], effort)
        print("\n" + render(SOCKET_COLUMNS, [socket_row(result) for result in results]))
        for note in notes(results):
            print(f"note: {note}")
        text = f"CPU per request over the socket, {many.name} routes over {few.name}"
        goals.append(Goal(text, many.cpu_ratio(few), 1.5))
    return goals, True
