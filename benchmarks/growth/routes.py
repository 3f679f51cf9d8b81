"""Growth with the routes of a gateway, as `routing` measures it."""

from collections.abc import Sequence

from ..measure import Effort
from ..routing import COLUMNS, EVERYWHERE, row, time_tables
from .dimension import Dimension, Growth
from .trend import MEMORY, Trend


def measure(sizes: Sequence[int], effort: Effort) -> Growth:
    timings = time_tables(sizes, effort.rounds)
    kinds = [kind for kind in timings[0].match_ns if kind != EVERYWHERE]
    slowest = [max(timing.match_ns[kind] for kind in kinds) / 1e3 for timing in timings]
    anywhere = [timing.match_ns[EVERYWHERE] / 1e3 for timing in timings]
    memory = "with routes all over it, the table is in no cache of the processor"
    once = "each route is read, checked and compiled once"
    return Growth(
        COLUMNS,
        [row(timing) for timing in timings],
        [
            Trend("a match, the slowest kind", sizes, slowest, "route"),
            Trend(f"a match, {EVERYWHERE}", sizes, anywhere, "route", reason=memory, most=MEMORY),
            Trend("validate", sizes, [one.validate_ms for one in timings], "route", "ms", once),
            Trend("compile", sizes, [one.compile_ms for one in timings], "route", "ms", once),
        ],
    )


ROUTES = Dimension(
    "routes", "a match, and what is done at start and at reload", (10, 1000, 10_000, 100_000), measure
)
