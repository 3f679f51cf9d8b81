"""What two workers serve, and what they cost, beside one."""

import os
from collections.abc import Sequence

from ..bench import bench
from ..load import Request
from ..measure import Effort, Result, Subject, run_rounds
from ..peers import GatewayPeer
from ..process import Process
from ..table import number, times
from .dimension import Dimension, Growth
from .memory import family, resident_kib
from .trend import Trend

COLUMNS = (
    "workers",
    "requests/s",
    "x one worker",
    "CPU us/request",
    "+- %",
    "p99 ms",
    "memory MiB",
    "errors",
)


def document(workers: int) -> dict[str, object]:
    return {
        "server": {"workers": workers},
        "routes": [{"name": "all", "path": "/*", "upstream": "origin"}],
    }


def spread(process: Process, cores: set[int]) -> None:
    """Let a process and its workers run on several cores."""
    for pid in family(process):
        os.sched_setaffinity(pid, cores)


def row(size: int, result: Result, one: Result, kib: int) -> list[str]:
    return [
        number(size),
        number(result.rate),
        times(result.rate_ratio(one)),
        number(result.cpu_us, 1),
        number(result.spread * 100),
        number(result.median(lambda r: r.report.p99_ms), 2),
        number(kib / 1024),
        number(result.errors),
    ]


def measure(sizes: Sequence[int], effort: Effort) -> Growth:
    allowed = os.sched_getaffinity(0)
    with bench() as run:
        beside = allowed - {run.cores.load}
        cores = beside if len(beside) > 1 else allowed
        upstream = run.start_upstream()
        subjects = []
        for size in sizes:
            process = run.start(GatewayPeer(document=document(size)), upstream)
            spread(process, cores)
            subjects.append(Subject(number(size), process, Request(process.port)))
        results = list(run_rounds(subjects, upstream, run.cores, effort).values())
        kib = [resident_kib(subject.process) for subject in subjects]
    note = (
        "the load and the upstream run on one of the cores of the workers: requests/s say nothing about how "
        "workers scale; that a request costs the same does"
        if run.cores.load in cores
        else f"the workers share {len(cores)} cores; the load has another one, which may bound requests/s"
    )
    return Growth(
        COLUMNS,
        [row(size, one, results[0], used) for size, one, used in zip(sizes, results, kib, strict=True)],
        [Trend("a request", sizes, [one.cpu_us for one in results], "worker")],
        [note],
    )


WORKERS = Dimension("workers", "worker processes", (1, 2), measure)
