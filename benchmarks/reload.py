"""`python -m benchmarks reload`: a large configuration is changed again and again under load."""

import argparse
import os
import signal
import statistics
import time
from dataclasses import dataclass, field

from .bench import bench
from .goals import Goal
from .load import Request
from .measure import Effort, Result, Subject, notes, run_round
from .peers import GatewayPeer
from .process import NotRunning, Process
from .table import number, render

COLUMNS = ("load", "requests/s", "CPU us/request", "p50 ms", "p99 ms", "failed requests")
PATIENCE = 60.0
"""Seconds after which a reload that is not live counts as broken."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--routes", type=int, default=2000, help="routes (default: %(default)s)")
    parser.add_argument(
        "--pause", type=float, default=0.2, help="seconds between two reloads (default: %(default)s)"
    )


def document(routes: int, version: int) -> dict[str, object]:
    """Many routes, and one that only this version has: it shows when the version is live."""
    paths = [f"/service-{index}/items/{{id}}" for index in range(routes - 1)]
    return {
        "routes": [
            {"name": f"route-{index}", "path": path, "upstream": "origin"}
            for index, path in enumerate([f"/version-{version}", *paths])
        ]
    }


@dataclass(slots=True)
class Reloader:
    """Changes the file, sends SIGHUP, and waits until the new version answers."""

    peer: GatewayPeer
    process: Process
    routes: int
    pause: float
    version: int = 0
    seconds: list[float] = field(default_factory=list)
    """Of each reload, from the signal to the first request that the new version answers."""

    def reload(self) -> None:
        """One reload; a probe that is neither answered nor refused as unknown ends the benchmark."""
        self.version += 1
        self.peer.write(document(self.routes, self.version))
        begin = time.monotonic()
        os.kill(self.process.pid, signal.SIGHUP)
        while (status := self.process.get(f"/version-{self.version}")[0]) != 200:
            if status != 404 or time.monotonic() - begin > PATIENCE:
                raise NotRunning(
                    f"version {self.version} is not live: the last probe brought status {status}"
                )
            time.sleep(0.005)
        self.seconds.append(time.monotonic() - begin)
        time.sleep(self.pause)


def row(result: Result) -> list[str]:
    return [
        result.name,
        number(result.rate),
        number(result.cpu_us, 1),
        number(result.median(lambda one: one.report.p50_ms), 2),
        number(result.median(lambda one: one.report.p99_ms), 2),
        number(result.errors),
    ]


def main(options: argparse.Namespace, effort: Effort) -> tuple[list[Goal], bool]:
    """Print the table. The goals, and whether everything ran."""
    peer = GatewayPeer(document=document(options.routes, 0))
    with bench() as run:
        upstream = run.start_upstream()
        process = run.start(peer, upstream, "/version-0")
        subject = Subject(
            "gateway", process, Request(process.port, "/service-{}/items/1", paths=options.routes - 1)
        )
        reloader = Reloader(peer, process, options.routes, options.pause)
        quiet, busy = [], []
        for _ in range(effort.rounds):
            quiet.append(run_round(subject, upstream, run.cores, effort))
            busy.append(run_round(subject, upstream, run.cores, effort, reloader.reload))
    results = [Result("without reloads", tuple(quiet)), Result("with reloads", tuple(busy))]
    print(render(COLUMNS, [row(result) for result in results]))
    median, longest = statistics.median(reloader.seconds) * 1e3, max(reloader.seconds) * 1e3
    print(
        f"{len(reloader.seconds)} reloads of {options.routes:,} routes, "
        f"from the signal to the first answer: median {median:,.0f} ms, longest {longest:,.0f} ms"
    )
    for note in notes(results):
        print(f"note: {note}")
    return [Goal("failed requests while reloading", float(results[1].errors), 0, unit="requests")], True
