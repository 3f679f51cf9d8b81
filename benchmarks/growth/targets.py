"""Growth with the targets of an upstream."""

import asyncio
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, get_args

from asgi_gateway.config import Upstream
from asgi_gateway.gateway import Gateway
from asgi_gateway.upstream.balancers import Balancer
from asgi_gateway.upstream.pool import Pool
from asgi_gateway.upstream.target import Target

from ..inside import request
from ..measure import Effort
from ..table import number
from .dimension import Dimension, Growth
from .trend import MEMORY, Trend
from .turns import calls, in_turns

BATCH = 2000
"""Picks between two looks at the clock."""
CALLERS = 500
"""Who is led to a target by `consistent_hash`."""
TURNS = 12
"""Per round of the command."""

Costs = Mapping[tuple[Balancer, int], float]
BALANCERS: Sequence[Balancer] = get_args(Balancer)


def declared(size: int, balancer: Balancer = "round_robin") -> dict[str, Any]:
    """An upstream with so many targets."""
    targets = [f"http://10.{place // 250}.{place % 250}.1:8080" for place in range(size)]
    return {"targets": targets, "balancer": balancer, "hash": {"by": "header:x-caller"}}


def pool(size: int, balancer: Balancer) -> Pool:
    options = Upstream.model_validate(declared(size, balancer))
    targets = [(Target(target.url), target.weight) for target in options.targets]
    made = Pool("origin", targets, options, random.Random(1), time.monotonic)
    made.open()
    return made


async def picks(of: Pool) -> float:
    """CPU microseconds of one pick."""
    callers = [request(fields={"x-caller": f"caller-{number}"}) for number in range(CALLERS)]
    return calls(of.pick, [(callers[turn % CALLERS],) for turn in range(BATCH)])


async def changes(of: Pool) -> float:
    """CPU microseconds of the first pick after a target went, or came back."""
    scope, target, turns = request(fields={"x-caller": "somebody"}), of.targets[-1][0], 20
    begin = time.process_time_ns()
    for turn in range(turns):
        target.mark(healthy=bool(turn % 2))
        of.pick(scope)
    return (time.process_time_ns() - begin) / 1e3 / turns


def compile_ms(size: int) -> float:
    """Milliseconds from a declaration to a gateway."""
    route = {"name": "all", "path": "/*", "upstream": "origin"}
    whole = {"upstreams": {"origin": declared(size)}, "routes": [route]}
    begin = time.process_time()
    Gateway.parse(whole)
    return (time.process_time() - begin) * 1e3


def measure(sizes: Sequence[int], effort: Effort) -> Growth:
    pools = {(name, size): pool(size, name) for name in BALANCERS for size in sizes}
    turns = TURNS * effort.rounds
    us = asyncio.run(in_turns({key: partial(picks, of) for key, of in pools.items()}, turns))
    several = {key: of for key, of in pools.items() if key[1] > 1}
    change = asyncio.run(in_turns({key: partial(changes, of) for key, of in several.items()}, turns))
    compile_ms(sizes[0])  # what is imported only now is no part of the first figure
    ms = [compile_ms(size) for size in sizes]
    return Growth(
        ("targets", *(f"{name} us" for name in BALANCERS), "change us", "compile ms"),
        [
            [
                number(size),
                *(number(us[name, size], 2) for name in BALANCERS),
                number(max(change.get((name, size), math.nan) for name in BALANCERS), 1),
                number(taken, 1),
            ]
            for size, taken in zip(sizes, ms, strict=True)
        ],
        [
            *trends([size for size in sizes if size > 1], us, change),
            Trend("compile", sizes, ms, "target", "ms", "each target is read and made once"),
        ],
    )


def trends(sizes: Sequence[int], us: Costs, change: Costs) -> Iterator[Trend]:
    """Of several targets: with a single one nothing is picked."""
    if len(sizes) < 2:
        return
    memory = "more targets are more memory to reach into; no pick looks at more than eight"
    looked = "all targets are looked at once after a change, and not for each request"
    for name in BALANCERS:
        picked, changed = [us[name, size] for size in sizes], [change[name, size] for size in sizes]
        yield Trend(f"a pick, {name}", sizes, picked, "target", reason=memory, most=MEMORY)
        yield Trend(f"a change, {name}", sizes, changed, "target", reason=looked)


TARGETS = Dimension("targets", "targets of an upstream, by balancer", (1, 2, 10, 100, 1000), measure)
