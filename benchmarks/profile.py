"""`python -m benchmarks profile`: where the gateway spends its time as a plain proxy."""

import argparse
import os
import pstats
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from shutil import which
from subprocess import TimeoutExpired
from threading import Thread

from .bench import bench
from .flame import draw, fold, parts
from .goals import Goal
from .load import Request
from .measure import Effort, Subject, run_round
from .peers import GatewayPeer, Place
from .process import NotInstalled, NotRunning, Process
from .table import number, render


class ProfiledGateway(GatewayPeer):
    """Under cProfile, which makes it several times slower: read ranks, not times."""

    def command(self, program: str, place: Place) -> Sequence[str]:
        self.file = place.folder / "profile"
        return [program, "-m", "cProfile", "-o", str(self.file), *super().command(program, place)[1:]]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lines", type=int, default=40, help="functions to print (default: %(default)s)")
    parser.add_argument(
        "--flame", type=Path, metavar="FILE", help="draw a flame graph instead (SVG; needs py-spy)"
    )


def record(process: Process, seconds: float, folder: Path) -> Path:
    """Look at the stacks of a program, a thousand times a second, while it works."""
    spy = which("py-spy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if spy is None:
        raise NotInstalled("py-spy is not installed (pip install --group bench)")
    file = folder / "stacks"
    pid, duration = str(process.program.pid), str(max(1, round(seconds)))
    options = ["--rate", "1000", "--function", "--format", "raw", "--duration", duration, "--pid", pid]
    subprocess.run([spy, "record", *options, "--output", str(file)], capture_output=True, check=True)
    return file


def flame(file: Path, effort: Effort) -> None:
    """Draw where a gateway, which nothing slows down but the looking, spends its time."""
    with bench() as run:
        upstream = run.start_upstream()
        process = run.start(GatewayPeer(), upstream)
        subject = Subject("gateway", process, Request(process.port))
        run_round(subject, upstream, run.cores, Effort(1, 1, effort.connections))
        found: list[Path] = []
        load = Effort(effort.seconds + 2, 1, effort.connections)
        looking = Thread(target=lambda: found.append(record(process, effort.seconds, run.folder)))
        looking.start()
        seen = run_round(subject, upstream, run.cores, load)
        looking.join()
        if not found:
            raise NotRunning("py-spy recorded nothing")
        root = fold(found[0].read_text().splitlines(), "asyncio/runners.py Runner.run")
        title = f"a plain proxy: {root.samples:,} samples while {seen.report.requests:,} requests were served"
        file.write_text(draw(root, title))
    print(f"{file}: {root.samples:,} samples")
    shares = parts(root).items()
    print(
        render(("part", "%"), [(part, number(100 * seen / root.samples, 1)) for part, seen in shares if seen])
    )


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
    if options.flame is not None:
        flame(options.flame, effort)
        return [], True
    peer = ProfiledGateway()
    with bench() as run:
        upstream = run.start_upstream()
        process = run.start(peer, upstream)
        seen = run_round(Subject("gateway", process, Request(process.port)), upstream, run.cores, effort)
        print(f"{seen.report.requests:,} requests, {seen.report.errors:,} errors")
        end(process, peer.file).sort_stats("tottime").print_stats(options.lines)
    return [], True
