"""Growth with the routes that stand at one path, and are told apart by a header."""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from asgi_gateway.gateway import Gateway
from asgi_gateway.routing import Entry, Pattern, Table

from ..measure import Effort
from ..table import number
from .dimension import Dimension, Growth
from .trend import MEMORY, Trend
from .turns import calls, in_turns

BATCH = 200
"""Matches between two looks at the clock."""
TURNS = 12
"""Per round of the command."""


def table(size: int) -> Table[None]:
    return Table(
        [
            Entry(
                name=f"{place}", pattern=Pattern("/*"), payload=None, headers=((b"x-tenant", b"%d" % place),)
            )
            for place in range(size)
        ]
    )


def asked(size: int) -> list[tuple[str, str, str, dict[str, Any]]]:
    """Requests for all of the routes in turn, as `match` takes them."""
    return [
        ("GET", "localhost", "/items", {"headers": [(b"x-tenant", b"%d" % place)], "query_string": b""})
        for place in (index * size // BATCH for index in range(BATCH))
    ]


async def matches(of: Table[None], wanted: Sequence[tuple[Any, ...]]) -> float:
    """CPU microseconds of one match."""
    return calls(of.match, wanted)


def compile_ms(size: int) -> float:
    """Milliseconds from a declaration to a gateway."""
    routes = [
        {"name": f"{place}", "path": "/*", "headers": {"x-tenant": f"{place}"}, "upstream": "origin"}
        for place in range(size)
    ]
    whole = {"upstreams": {"origin": {"targets": ["http://127.0.0.1:9"]}}, "routes": routes}
    begin = time.process_time()
    Gateway.parse(whole)
    return (time.process_time() - begin) * 1e3


def measure(sizes: Sequence[int], effort: Effort) -> Growth:
    works = {size: partial(matches, table(size), asked(size)) for size in sizes}
    us = asyncio.run(in_turns(works, TURNS * effort.rounds))
    compile_ms(sizes[0])  # what is imported only now is no part of the first figure
    ms = [compile_ms(size) for size in sizes]
    looked_up = "among more than a few the one that fits is looked up, in more memory"
    return Growth(
        ("routes at one path", "a match, us", "compile ms"),
        [
            [number(size), number(us[size], 2), number(taken, 1)]
            for size, taken in zip(sizes, ms, strict=True)
        ],
        [
            Trend("a match", sizes, list(us.values()), "route", reason=looked_up, most=MEMORY),
            Trend("compile", sizes, ms, "route", "ms", "each route is read, checked and compiled once"),
        ],
    )


VARIANTS = Dimension(
    "variants", "routes at one path that are told apart by a header", (1, 10, 100, 1000), measure
)
