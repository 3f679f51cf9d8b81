"""Growth with the connections of callers: busy ones, and idle ones beside a usual load."""

import resource
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import NamedTuple

from ..bench import Bench, bench
from ..load import Request
from ..measure import Effort, Result, Round, Subject, notes, run_round
from ..peers import GatewayPeer
from ..process import NotRunning, Process
from ..table import number
from .dimension import Dimension, Growth
from .idle import idle
from .memory import resident_kib
from .trend import MEMORY, Trend

OTHER_FILES = 500
"""Open files beside the connections, at most."""
OPENED = 500
"""Connections of the load for each second of a round, at most: they are opened in it, and that is not to be
what is measured.
"""
DOCUMENT = {
    "server": {"keep_alive": "1h"},
    "upstreams": {"origin": {"pool": {"max_connections": 64, "max_waiting": 100_000, "wait": "30s"}}},
    "routes": [{"name": "all", "path": "/*", "upstream": "origin"}],
}
"""A plain proxy whose calls wait for one of few connections, as those of so many callers do."""
COLUMNS = ("connections", "CPU us/request", "+- %", "requests/s", "p99 ms", "errors")


class Measured(NamedTuple):
    """One row."""

    size: int
    subject: Subject
    connections: int
    """Of the load."""


def row(result: Result) -> list[str]:
    return [
        result.name,
        number(result.cpu_us, 1),
        number(result.spread * 100),
        number(result.rate),
        number(result.median(lambda one: one.report.p99_ms), 1),
        number(result.errors),
    ]


def open_files() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def with_idle(run: Bench, upstream: Process, size: int, stack: ExitStack) -> tuple[Process, float]:
    """A gateway with so many idle connections, and the KiB that each takes up."""
    process = run.start(GatewayPeer(document=DOCUMENT), upstream)
    before = resident_kib(process)
    stack.enter_context(idle(process.port, size))
    return process, (resident_kib(process) - before) / size


def measure(sizes: Sequence[int], effort: Effort) -> Growth:
    fitting = [size for size in sizes if size + OTHER_FILES <= open_files()]
    if len(fitting) < 2:
        raise NotRunning(f"only {open_files()} files may be open (ulimit -n)")
    with bench() as run, ExitStack() as stack:
        upstream = run.start_upstream()
        plain = run.start(GatewayPeer(document=DOCUMENT), upstream)
        busy = [
            Measured(size, Subject(f"{size:,} busy", plain, Request(plain.port)), size) for size in fitting
        ]
        beside, kib = [], 0.0
        for size in fitting:
            process, kib = with_idle(run, upstream, size, stack)
            subject = Subject(f"{size:,} idle, {effort.connections} busy", process, Request(process.port))
            beside.append(Measured(size, subject, effort.connections))
        rounds: dict[str, list[Round]] = {}
        for turn in range(effort.rounds + 1):  # the first one warms up
            for one in (*busy, *beside):
                seconds = max(effort.seconds, one.connections / OPENED) if turn else 1
                load = replace(effort, connections=one.connections, seconds=seconds)
                seen = run_round(one.subject, upstream, run.cores, load)
                rounds.setdefault(one.subject.name, []).extend([seen] if turn else [])
    results = {name: Result(name, tuple(of)) for name, of in rounds.items()}
    said = [f"{number(kib, 1)} KiB of memory for each of {fitting[-1]:,} idle connections"]
    if fitting != list(sizes):
        said.append(f"only {open_files():,} files may be open: larger sizes were left out")
    for result in results.values():
        if result.errors:
            failed = sum(one.report.failed for one in result.rounds)
            refused = f"{result.errors - failed:,} were refused"
            said.append(f"{result.name}: {failed:,} took more than 2 s or lost their connection, {refused}")
    return Growth(
        COLUMNS,
        [row(result) for result in results.values()],
        [trend("all of them busy", busy, results), trend("beside idle ones", beside, results)],
        [*said, *notes(list(results.values()))],
    )


def trend(kind: str, measured: Sequence[Measured], results: Mapping[str, Result]) -> Trend:
    """From the second size on: with one connection the system is asked for each request by itself, which
    costs more than any number of connections does.
    """
    several = measured[1:] if len(measured) > 2 else measured
    costs = [results[one.subject.name].cpu_us for one in several]
    waits = "calls that wait for a connection to the upstream, more memory, and the callers' own to be opened"
    return Trend(
        f"a request, {kind}", [one.size for one in several], costs, "connection", reason=waits, most=MEMORY
    )


CONNECTIONS = Dimension("connections", "connections of callers, busy or idle", (1, 64, 1000, 5000), measure)
