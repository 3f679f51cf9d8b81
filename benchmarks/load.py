"""What loads a subject: a program on the load core that prints a report. Usually it is wrk on one thread."""

import json
import os
import resource
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which
from typing import Protocol

from .process import NotInstalled


class Load(Protocol):
    """What is done to a subject, again and again."""

    def command(self, seconds: float, connections: int) -> list[str]:
        """A program that does it for so long, and then prints a report as wrk.lua does."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """One request for wrk: each of its connections sends the next one when it has the answer."""

    port: int
    path: str = "/"
    headers: Mapping[str, str] = field(default_factory=dict)
    paths: int = 0
    """If given, so many paths in turn: 0, 1, 2, ... in place of the `{}` in `path`."""
    method: str = "GET"
    body_bytes: int = 0

    def command(self, seconds: float, connections: int) -> list[str]:
        """wrk takes whole seconds only."""
        wrk = which("wrk")
        if wrk is None:
            raise NotInstalled("wrk is not installed (apt-get install wrk)")
        headers = [part for name, value in self.headers.items() for part in ("-H", f"{name}: {value}")]
        script = str(Path(__file__).with_name("wrk.lua"))
        duration = f"{max(1, round(seconds))}s"
        url = f"http://127.0.0.1:{self.port}{'/' if self.paths else self.path}"
        words = [self.method, str(self.body_bytes), self.path, str(self.paths)]
        return [wrk, "-t1", f"-c{connections}", f"-d{duration}", "-s", script, *headers, url, "--", *words]


@dataclass(frozen=True, slots=True)
class Report:
    """What the load saw."""

    requests: int
    """Answers, whatever their status."""
    seconds: float
    p50_ms: float
    p99_ms: float
    failed: int = 0
    """Connections that failed, and timeouts: they brought no answer."""
    refused: int = 0
    """Answers with a status of 400 and above."""

    @property
    def errors(self) -> int:
        return self.failed + self.refused

    @property
    def rate(self) -> float:
        """Good answers per second."""
        return (self.requests - self.refused) / self.seconds if self.seconds else 0.0


def parse_report(output: str) -> Report:
    """Read the line of JSON in what the load printed; ValueError without it."""
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            said = json.loads(line)
            return Report(
                requests=said["requests"],
                seconds=said["duration_us"] / 1e6,
                p50_ms=said["p50_us"] / 1e3,
                p99_ms=said["p99_us"] / 1e3,
                failed=said["failed"],
                refused=said["refused"],
            )
    raise ValueError(f"the load printed no report: {output[-300:]!r}")


def start(work: Load, seconds: float, connections: int, core: int) -> subprocess.Popen[str]:
    """Start the load on one core."""
    return subprocess.Popen(
        work.command(seconds, connections),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )


def finish(program: subprocess.Popen[str], seconds: float) -> Report:
    """Wait for the load, which was told to run for `seconds`."""
    try:
        output, _ = program.communicate(timeout=seconds + 15)
    finally:
        program.kill()
        program.wait()
    return parse_report(output)


def load_cpu_seconds() -> float:
    """CPU seconds of all load generators that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
