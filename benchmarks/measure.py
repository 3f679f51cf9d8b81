"""Rounds of load over several subjects, and what they come to."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass

from . import load
from .load import Load, Report
from .process import Cores, Process, core_busy_seconds

SATURATED = 0.95
"""From this share on the load core, not the subject, bounds the requests per second."""
NOISY = 0.10
"""From this share on other processes took so much of a core that figures are doubtful."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long and how hard is measured."""

    seconds: float
    """Length of a round."""
    rounds: int
    connections: int
    """Keep-alive connections of the load, each with one request at a time."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: work for a process, under a name for the table."""

    name: str
    process: Process
    work: Load


@dataclass(frozen=True, slots=True)
class Round:
    """One run of load against one subject."""

    report: Report
    cpu_seconds: float
    """Of the subject's process tree."""
    load_share: float
    """Part of the load core that the load and the upstream used, 0 to 1."""
    noise_share: float
    """Part of a core that anybody else used, 0 to 1, on the core where that was more."""

    @property
    def cpu_us(self) -> float:
        """CPU microseconds of the subject per request."""
        return self.cpu_seconds / self.report.requests * 1e6 if self.report.requests else math.nan


@dataclass(frozen=True, slots=True)
class Result:
    """All rounds of one subject."""

    name: str
    rounds: tuple[Round, ...]

    def median(self, read: Callable[[Round], float]) -> float:
        return statistics.median(read(one) for one in self.rounds)

    @property
    def cpu_us(self) -> float:
        """CPU microseconds per request, median."""
        return self.median(lambda one: one.cpu_us)

    @property
    def rate(self) -> float:
        """Requests per second, median."""
        return self.median(lambda one: one.report.rate)

    @property
    def errors(self) -> int:
        return sum(one.report.errors for one in self.rounds)

    @property
    def spread(self) -> float:
        """Half of the way from the smallest to the largest CPU per request, as a part of the median."""
        costs = [one.cpu_us for one in self.rounds]
        return (max(costs) - min(costs)) / 2 / self.cpu_us if self.cpu_us else math.nan

    def cpu_ratio(self, base: "Result") -> float:
        """CPU per request in units of another subject's: median over the pairs of neighbouring rounds."""
        pairs = [(a.cpu_us, b.cpu_us) for a, b in zip(self.rounds, base.rounds, strict=True)]
        # The clock of CPU time has ticks: a round may be too short for one.
        return statistics.median(a / b for a, b in pairs) if all(b for _, b in pairs) else math.nan

    def rate_ratio(self, base: "Result") -> float:
        """Requests per second in units of another subject's, paired in the same way."""
        pairs = zip(self.rounds, base.rounds, strict=True)
        return statistics.median(
            a.report.rate / b.report.rate if b.report.rate else math.inf for a, b in pairs
        )


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds that have been used until now, or between two moments."""

    subject: float
    load: float
    """By the load generators that have ended, and the upstream."""
    driver: float
    """By this process, which runs on the load core."""
    measured_core: float
    load_core: float

    @classmethod
    def read(cls, subject: Process, upstream: Process, cores: Cores) -> "Usage":
        return cls(
            subject.cpu_seconds(),
            load.load_cpu_seconds() + upstream.cpu_seconds(),
            time.process_time(),
            core_busy_seconds(cores.measured),
            core_busy_seconds(cores.load),
        )

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(*(now - then for now, then in zip(astuple(self), astuple(other), strict=True)))

    @property
    def others(self) -> float:
        """By everybody else, on the core where that was more."""
        beside = self.load_core - self.load - self.driver
        return max(0.0, self.measured_core - self.subject, beside)


def run_round(
    subject: Subject,
    upstream: Process,
    cores: Cores,
    effort: Effort,
    meanwhile: Callable[[], None] | None = None,
) -> Round:
    """Load one subject while the others rest. `meanwhile` is called again and again under the load."""
    subject.process.settle()
    before = Usage.read(subject.process, upstream, cores)
    program = load.start(subject.work, effort.seconds, effort.connections, cores.load)
    while meanwhile and program.poll() is None:
        meanwhile()
    report = load.finish(program, effort.seconds)
    used = Usage.read(subject.process, upstream, cores) - before
    return Round(report, used.subject, used.load / report.seconds, used.others / report.seconds)


def run_rounds(
    subjects: Sequence[Subject], upstream: Process, cores: Cores, effort: Effort
) -> dict[str, Result]:
    """Measure in turns, A B C A B C, so that what disturbs the machine hits all; the first turn warms up."""
    warm = Effort(min(1, effort.seconds), 1, effort.connections)
    for subject in subjects:
        run_round(subject, upstream, cores, warm)
    turns = [
        {subject.name: run_round(subject, upstream, cores, effort) for subject in subjects}
        for _ in range(effort.rounds)
    ]
    return {
        subject.name: Result(subject.name, tuple(turn[subject.name] for turn in turns))
        for subject in subjects
    }


def notes(results: Sequence[Result]) -> list[str]:
    """What a reader must know about the rounds before the figures are believed."""
    saturated = [one.name for one in results if one.median(lambda r: r.load_share) > SATURATED]
    noisy = [one.name for one in results if one.median(lambda r: r.noise_share) > NOISY]
    lines = []
    if saturated:
        lines.append(
            f"load core saturated for {', '.join(saturated)}: requests/s and latency are bounded by the load "
            "and the upstream there; CPU us/request holds"
        )
    if noisy:
        lines.append(f"other processes used over {NOISY:.0%} of one of both cores for {', '.join(noisy)}")
    return lines
