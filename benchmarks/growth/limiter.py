"""Growth with the callers that a limiter of rates counts in memory."""

import asyncio
import gc
import random
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count

from asgi_gateway.units import Rate
from asgi_gateway_plugins.rate_limit.limiter import STRATEGIES, Limiter, Rule, WindowKind

from ..measure import Effort
from ..table import number
from .dimension import Dimension, Growth
from .trend import MEMORY, Trend
from .turns import calls, in_turns

BATCH = 1000
"""Decisions between two looks at the clock."""
TURNS = 12
"""Per round of the command."""
RATE = Rate(amount=1_000_000, period=1_000_000_000)
"""Nobody is refused, and nobody is forgotten meanwhile: a bucket fills up again in 1,000 s per request."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a decision about a caller who is known, and about one who is not while there is no room."""

    known: float
    new: float
    key_bytes: float
    """What a caller takes up."""


def caller(number: int) -> str:
    return f"header caller-{number}"


def fill(window: WindowKind, callers: Sequence[str]) -> tuple[Limiter, float]:
    """A limiter that has counted all of them and has no room left, and the bytes that each takes up."""
    limiter = Limiter([Rule(RATE)], window, time.monotonic, len(callers))
    decide = limiter.at_once
    assert decide is not None
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for name in callers:
            decide(name, 1)
        return limiter, (tracemalloc.get_traced_memory()[0] - before) / len(callers)
    finally:
        tracemalloc.stop()


async def cost(decide: Callable[[], float]) -> float:
    return decide()


def known(limiter: Limiter, callers: Sequence[str], dice: random.Random) -> float:
    """Of one decision, of callers at random."""
    assert limiter.at_once is not None
    return calls(limiter.at_once, [(name, 1) for name in dice.choices(callers, k=BATCH)])


def new(limiter: Limiter, numbers: "count[int]") -> float:
    """Of one decision about somebody who was never seen."""
    assert limiter.at_once is not None
    return calls(limiter.at_once, [(f"header new-{next(numbers)}", 1) for _ in range(BATCH)])


def measure_window(window: WindowKind, sizes: Sequence[int], turns: int) -> list[Cost]:
    dice, numbers = random.Random(1), count()
    callers = [caller(number) for number in range(sizes[-1])]
    gc.disable()
    try:
        made = {size: fill(window, callers[:size]) for size in sizes}
    finally:
        gc.enable()
    of_known = {
        size: partial(cost, partial(known, limiter, callers[:size], dice))
        for size, (limiter, _) in made.items()
    }
    of_new = {size: partial(cost, partial(new, limiter, numbers)) for size, (limiter, _) in made.items()}
    seen = asyncio.run(in_turns(of_known, turns))
    unseen = asyncio.run(in_turns(of_new, turns))
    return [Cost(seen[size], unseen[size], made[size][1]) for size in sizes]


def measure(sizes: Sequence[int], effort: Effort) -> Growth:
    costs = {window: measure_window(window, sizes, TURNS * effort.rounds) for window in STRATEGIES}
    memory = "a caller at random is in no cache of the processor; no decision looks at another caller"
    rows, trends = [], []
    for window, of_sizes in costs.items():
        for size, one in zip(sizes, of_sizes, strict=True):
            figures = [number(one.known, 2), number(one.new, 2), number(one.key_bytes)]
            rows.append([window, number(size), *figures])
        for what, taken in (
            ("a decision", [one.known for one in of_sizes]),
            ("a new caller who puts another one out", [one.new for one in of_sizes]),
        ):
            trends.append(Trend(f"{what}, {window}", sizes, taken, "key", reason=memory, most=MEMORY))
    return Growth(
        ("window", "live keys", "decision us", "new caller us", "bytes per key"),
        rows,
        trends,
        ["of a moving window each request is remembered: there each decision puts the oldest one out"],
    )


LIMITER = Dimension("limiter", "live keys of rate_limit in memory", (1, 1000, 100_000, 1_000_000), measure)
