"""Growth with the components on a route."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from asgi_gateway.gateway import Gateway

from ..cases import BATCH
from ..chain import STANDARD
from ..inside import INSTANT, Asked, request
from ..measure import Effort
from ..table import number
from .dimension import Dimension, Growth
from .trend import Trend
from .turns import in_turns

CHECK, CHANGE = "csrf", "headers"
"""One that looks at a request and lets it pass, and one that changes the request and its answer."""
ROUTES = 100
"""Routes of a configuration whose compilation is timed."""
TURNS = 12
"""Per round of the command."""


def document(name: str, size: int, routes: int) -> dict[str, Any]:
    return {
        "upstreams": {"origin": {"asgi": INSTANT}},
        "routes": [
            {
                "name": f"route-{index}",
                "path": f"/{index}/*",
                "upstream": "origin",
                "components": [{name: STANDARD[name]}] * size,
            }
            for index in range(routes)
        ],
    }


def compile_ms(size: int) -> float:
    """Milliseconds from a declaration to a gateway with so many components on each route."""
    declared = document(CHANGE, size, ROUTES)
    begin = time.process_time()
    Gateway.parse(declared)
    return (time.process_time() - begin) * 1e3


async def requests(sizes: Sequence[int], turns: int) -> Mapping[tuple[str, int], float]:
    """CPU microseconds of a request, by component and how often it is there."""
    wanted = [request("/0/items")] * BATCH
    async with AsyncExitStack() as stack:
        works = {}
        for name in (CHECK, CHANGE):
            for size in sizes:
                gateway = Gateway.parse(document(name, size, 1))
                await stack.enter_async_context(gateway.lifespan())
                works[name, size] = partial(Asked(gateway).ask, wanted)
        return await in_turns(works, turns)


def measure(sizes: Sequence[int], effort: Effort) -> Growth:
    us = asyncio.run(requests(sizes, TURNS * effort.rounds))
    compile_ms(sizes[0])  # what is imported only now is no part of the first figure
    ms = [compile_ms(size) for size in sizes]
    each = "each component does its work, once for a request"
    return Growth(
        ("components", f"{CHECK}, us/request", f"{CHANGE}, us/request", f"compile {ROUTES} routes, ms"),
        [
            [number(size), number(us[CHECK, size], 1), number(us[CHANGE, size], 1), number(taken, 1)]
            for size, taken in zip(sizes, ms, strict=True)
        ],
        [
            *(
                Trend(
                    f"a request, {name}", sizes, [us[name, size] for size in sizes], "component", reason=each
                )
                for name in (CHECK, CHANGE)
            ),
            Trend("compile", sizes, ms, "component", "ms", "each component of each route is built once"),
        ],
    )


COMPONENTS = Dimension("components", "components on a route", (0, 1, 5, 10, 20), measure)
