"""Growth with the answers that a cache keeps in memory."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

from asgi_gateway.asgi import Receive, Scope, Send
from asgi_gateway.gateway import Gateway

from ..cases import BATCH
from ..inside import Asked, request
from ..measure import Effort
from ..process import NotRunning
from ..table import number
from .dimension import Dimension, Growth
from .trend import Trend
from .turns import in_turns

TURNS = 12
"""Per round of the command."""
BODY = b"x" * 1024


class Origin:
    """Answers at once, and counts."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.asked += 1
        head = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(BODY))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": BODY})


origin = Origin()


def document() -> dict[str, object]:
    """What is kept may take up 1 GiB: all that is asked for here."""
    cache = {"cache": {"ttl": "1h", "max_size": "1GiB"}}
    return {
        "upstreams": {"origin": {"asgi": f"{__name__}:origin"}},
        "routes": [{"name": "all", "path": "/*", "upstream": "origin", "components": [cache]}],
    }


class Hits:
    """Asks one cache for what it has."""

    def __init__(self, gateway: Gateway, entries: int) -> None:
        self._asked = Asked(gateway)
        self._entries = entries
        self._dice = random.Random(1)

    async def fill(self) -> float:
        """CPU microseconds of a request that is kept."""
        return await self._asked.ask(request(f"/items/{number}") for number in range(self._entries))

    async def ask(self) -> float:
        """CPU microseconds of a hit; those that are asked for are drawn before."""
        drawn = [request(f"/items/{self._dice.randrange(self._entries)}") for _ in range(BATCH)]
        return await self._asked.ask(drawn)


async def hits(sizes: Sequence[int], turns: int) -> tuple[list[float], list[float]]:
    """CPU microseconds of a hit, and of a request whose answer is kept."""
    kept, works = [], {}
    async with AsyncExitStack() as stack:
        for size in sizes:
            gateway = Gateway.parse(document())
            await stack.enter_async_context(gateway.lifespan())
            works[size] = Hits(gateway, size)
            before = origin.asked
            kept.append(await works[size].fill())
            if origin.asked - before != size:
                raise NotRunning(f"of {size} requests {origin.asked - before} reached the upstream")
        before = origin.asked
        found = await in_turns({size: partial(one.ask) for size, one in works.items()}, turns)
        if origin.asked != before:
            raise NotRunning(f"{origin.asked - before} requests were no hits")
    return list(found.values()), kept


def measure(sizes: Sequence[int], effort: Effort) -> Growth:
    us, kept = asyncio.run(hits(sizes, TURNS * effort.rounds))
    return Growth(
        ("entries", "a hit, us", "to keep one, us"),
        [
            [number(size), number(hit, 1), number(miss, 1)]
            for size, hit, miss in zip(sizes, us, kept, strict=True)
        ],
        [Trend("a hit", sizes, us, "entry")],
        ["to keep one was timed once, with what a request needs at first in it: small sizes show only that"],
    )


CACHE = Dimension("cache", "answers that a cache keeps", (1, 1000, 10_000, 100_000), measure)
