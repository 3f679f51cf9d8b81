"""Growth with the header fields of a request, and of an answer."""

from collections.abc import Sequence

from ..bench import bench
from ..load import Request
from ..measure import Effort, Result, Subject, notes, run_rounds
from ..peers import GatewayPeer
from ..table import number
from .dimension import Dimension, Growth
from .origin import FIELDS, Origin
from .trend import Trend

COLUMNS = ("fields more, of a", "CPU us/request", "+- %", "requests/s", "errors")


def row(result: Result) -> list[str]:
    return [
        result.name,
        number(result.cpu_us, 1),
        number(result.spread * 100),
        number(result.rate),
        number(result.errors),
    ]


def wanted(port: int, way: str, size: int) -> Request:
    if way == "answer":
        return Request(port, FIELDS.format(size))
    return Request(port, headers={f"x-request-{number}": "value of some length" for number in range(size)})


def measure(sizes: Sequence[int], effort: Effort) -> Growth:
    with bench() as run:
        upstream = run.start(Origin(fields=sizes))
        process = run.start(GatewayPeer(), upstream)
        ways = {
            way: [Subject(f"{size} {way}", process, wanted(process.port, way, size)) for size in sizes]
            for way in ("request", "answer")
        }
        results = run_rounds(
            [one for subjects in ways.values() for one in subjects], upstream, run.cores, effort
        )
    return Growth(
        COLUMNS,
        [row(result) for result in results.values()],
        [
            Trend(
                f"a request, fields of the {way}",
                sizes,
                [results[one.name].cpu_us for one in subjects],
                "field",
                reason="each field is read, looked at and written once",
            )
            for way, subjects in ways.items()
        ],
        notes(list(results.values())),
    )


FIELDS_OF_A_MESSAGE = Dimension(
    "fields", "header fields of a request, and of an answer", (0, 10, 50, 100, 180), measure
)
