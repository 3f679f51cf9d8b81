"""`python -m benchmarks start`: how soon the gateway is there, and how much memory it takes."""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from .bench import Bench, bench
from .goals import Goal
from .measure import Effort
from .peers import Answer, GatewayPeer, Peer
from .process import Process, read_processes
from .table import number, render

COLUMNS = ("what", "median", "least", "most", "unit")
ROUTES = 10
WORKERS = 2
WARM = 300
"""Requests before memory is looked at."""
HELP, IMPORT, FIRST = "asgi-gateway --help", "import asgi_gateway", "first answer, a file of 10 routes"
APP = "from asgi_gateway.gateway import Gateway"
BARE, UNIT_FIRST = "python -c pass", "first answer, uvicorn by itself"
SHARED, OWN = "memory of a worker, PSS", "memory of a worker, USS"
UNIT_SHARED = "memory of uvicorn by itself, PSS"


def add_options(parser: argparse.ArgumentParser) -> None:
    """This one needs no options of its own."""


def document() -> dict[str, object]:
    """A small gateway as people have it: ten routes, and a few components on each."""
    return {
        "components": ["request_id", "access_log"],
        "routes": [
            {
                "name": f"route-{index}",
                "path": f"/{index}/*",
                "upstream": "origin",
                "components": ["security_headers", {"rate_limit": {"limit": "1000000/minute"}}],
            }
            for index in range(ROUTES)
        ],
    }


def run_ms(command: Sequence[str]) -> float:
    """Milliseconds of a program from its start to its end."""
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - begin) * 1e3


def import_ms(statement: str) -> float:
    """Milliseconds of an import in a new interpreter, without the interpreter's own start."""
    code = f"import time; begin = time.perf_counter(); {statement}; print(time.perf_counter() - begin)"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout) * 1e3


def first_ms(run: Bench, peer: Peer, upstream: Process, path: str) -> float:
    """Milliseconds from the start of a server to the end of its first answer. The server ends then."""
    with ExitStack() as stack:
        begin = time.perf_counter()
        replace(run, stack=stack).start(peer, upstream, path, pause=0.005)
        return (time.perf_counter() - begin) * 1e3


def memory_kib(pid: int) -> tuple[int, int]:
    """PSS and USS of a process: its fair share of all its pages, and the pages that nobody else has."""
    sizes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, size = line.partition(":")
        sizes[name] = int(size.split()[0])
    return sizes["Pss"], sizes["Private_Clean"] + sizes["Private_Dirty"]


def workers_of(process: Process) -> list[int]:
    """The processes that a server started; itself if there are none."""
    children = [pid for pid, (parent, _) in read_processes().items() if parent == process.pid]
    return children or [process.pid]


def memories(run: Bench, peer: Peer, upstream: Process, path: str) -> list[tuple[int, int]]:
    """Memory of each worker of a server that has answered some requests."""
    with ExitStack() as stack:
        process = replace(run, stack=stack).start(peer, upstream, path)
        for _ in range(WARM):
            process.get(path)
        return [memory_kib(pid) for pid in workers_of(process)]


def measure(run: Bench, upstream: Process, rounds: int) -> Mapping[str, tuple[list[float], str]]:
    """Every figure with its unit, as often as there are rounds."""
    gateway = GatewayPeer(document=document())
    two = GatewayPeer(document={**document(), "server": {"workers": WORKERS}})
    found: dict[str, tuple[list[float], str]] = {}
    timed: Mapping[str, Callable[[], float]] = {
        BARE: lambda: run_ms([sys.executable, "-c", "pass"]),
        HELP: lambda: run_ms([sys.executable, "-m", "asgi_gateway", "--help"]),
        IMPORT: lambda: import_ms(IMPORT),
        APP: lambda: import_ms(APP),
        UNIT_FIRST: lambda: first_ms(run, Answer(), upstream, "/"),
        FIRST: lambda: first_ms(run, gateway, upstream, "/0/first"),
    }
    for _ in range(rounds):
        for name, take in timed.items():
            found.setdefault(name, ([], "ms"))[0].append(take())
    shared = memories(run, Answer(), upstream, "/")
    found[UNIT_SHARED] = ([pss / 1024 for pss, _ in shared], "MiB")
    own = memories(run, two, upstream, "/0/first")
    found[SHARED] = ([pss / 1024 for pss, _ in own], "MiB")
    found[OWN] = ([uss / 1024 for _, uss in own], "MiB")
    return found


def main(options: argparse.Namespace, effort: Effort) -> tuple[list[Goal], bool]:
    """Print the table. The goals, and whether everything ran."""
    with bench() as run:
        found = measure(run, run.start_upstream(), effort.rounds)
    rows = []
    for name, (figures, unit) in found.items():
        spread = [statistics.median(figures), min(figures), max(figures)]
        rows.append([name, *(number(figure, 1) for figure in spread), unit])
    print(render(COLUMNS, rows))

    # What else runs only ever adds to a time on the clock: the least one is nearest to the truth.
    return [
        Goal(f"{HELP}, the least", min(found[HELP][0]), 250, unit="ms"),
        Goal(f"{IMPORT}, the least", min(found[IMPORT][0]), 150, unit="ms"),
        Goal(f"{FIRST}, the least", min(found[FIRST][0]), 1000, unit="ms"),
        Goal(SHARED, max(found[SHARED][0]), 80, unit="MiB"),
    ], True
