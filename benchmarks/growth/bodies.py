"""Growth with the size of an answer's body."""

from collections.abc import Sequence
from dataclasses import replace

from ..bench import bench
from ..load import Request
from ..measure import Effort, Result, Subject, notes, run_rounds
from ..peers import GatewayPeer
from ..table import number
from .dimension import Dimension, Growth
from .origin import BODY, Origin
from .trend import Trend

KIB, MIB = 1024, 1024 * 1024
CONNECTIONS = 8
"""At most: more of them, each with a large body, measure the memory of the machine."""
COLUMNS = ("body, bytes", "CPU us/request", "CPU us/MiB", "+- %", "MiB/s", "errors")


def row(size: int, result: Result) -> list[str]:
    return [
        number(size),
        number(result.cpu_us, 1),
        number(per_mib(size, result)),
        number(result.spread * 100),
        number(result.rate * size / MIB, 1),
        number(result.errors),
    ]


def per_mib(size: int, result: Result) -> float:
    return result.cpu_us * MIB / size


def measure(sizes: Sequence[int], effort: Effort) -> Growth:
    effort = replace(effort, connections=min(CONNECTIONS, effort.connections))
    with bench() as run:
        upstream = run.start(Origin(bodies=sizes))
        process = run.start(GatewayPeer(), upstream)
        subjects = [
            Subject(number(size), process, Request(process.port, BODY.format(size))) for size in sizes
        ]
        results = list(run_rounds(subjects, upstream, run.cores, effort).values())
    large = [(size, per_mib(size, one)) for size, one in zip(sizes, results, strict=True) if size >= MIB]
    trends = [
        Trend(
            "a request",
            sizes,
            [one.cpu_us for one in results],
            "byte",
            reason="each piece is read and written once",
        )
    ]
    if len(large) > 1:
        trends.append(
            Trend("a MiB of a large one", [size for size, _ in large], [us for _, us in large], "byte")
        )
    return Growth(
        COLUMNS,
        [row(size, result) for size, result in zip(sizes, results, strict=True)],
        trends,
        notes(results),
    )


BODIES = Dimension("bodies", "bytes of an answer", (KIB, 16 * KIB, 128 * KIB, MIB, 10 * MIB), measure)
