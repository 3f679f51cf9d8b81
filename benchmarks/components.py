"""`python -m benchmarks components`: what each component adds to a request, by itself, without a socket."""

import argparse
import asyncio
import gc
import json
import math
import random
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from asgi_gateway.asgi import Scope
from asgi_gateway.gateway import Gateway

from .cases import BATCH, SERVICE, Case, cases
from .chain import CONSUMER, STANDARD
from .goals import Goal
from .inside import INSTANT, Asked, Talked, request
from .measure import Effort
from .table import number, render

COLUMNS = ("component", "added us", "+- us", "CPU us/request")
KNOWN = b'{"active": true, "sub": "benchmark"}'


def configuration(case: Case, *, measured: bool) -> dict[str, Any]:
    entries: list[object] = [{name: STANDARD[name]} for name in case.beside]
    if measured:
        entries.append(case.entry)
    return {
        "upstreams": {"origin": {"asgi": INSTANT}},
        "routes": [
            {
                "name": "all",
                "path": "/*",
                "upstream": "origin",
                "components": entries,
                "websocket": case.talks,
            }
        ],
        "consumers": [CONSUMER],
        **(case.more or {}),
    }


def scopes(case: Case, count: int) -> list[Scope]:
    """The requests of a case, from the first one."""
    return [request(fields=case.fields(number), address=case.address(number)) for number in range(count)]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a case comes to, in microseconds."""

    case: Case
    added: float
    spread: float
    whole: float
    refused: int

    @property
    def row(self) -> list[str]:
        if self.refused:
            return [self.case.name, f"refused {self.refused} requests"]
        return [self.case.name, number(self.added, 2), number(self.spread, 2), number(self.whole, 1)]

    @property
    def goal(self) -> Goal:
        value = math.nan if self.refused else self.added
        return Goal(f"CPU that {self.case.name} adds", value, self.case.bound, unit="us")


async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request to the service."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(KNOWN), KNOWN)
    )
    writer.close()


@asynccontextmanager
async def running(case: Case, *, measured: bool) -> AsyncIterator[Asked]:
    async with await asyncio.start_server(tell, "127.0.0.1", 0) as service:
        port = service.sockets[0].getsockname()[1]
        text = json.dumps(configuration(case, measured=measured))
        declared = json.loads(text.replace(SERVICE, f"http://127.0.0.1:{port}/"))
        gateway = Gateway.parse(declared)
        async with gateway.lifespan():
            yield Talked(gateway) if case.talks else Asked(gateway)


async def measure(case: Case, batches: int, batch: int = BATCH) -> Cost:
    """The same requests with and without the component, batch by batch in turns."""
    dice = random.Random(1)
    made = scopes(case, case.warm + batches * batch if case.once else case.different)
    async with running(case, measured=False) as plain, running(case, measured=True) as asked:
        first = made[: case.warm] if case.once else [made[index % len(made)] for index in range(case.warm)]
        await plain.ask(first[:batch])
        await asked.ask(first)
        without, added = [], []
        gc.collect()
        gc.disable()
        try:
            for turn in range(batches):
                at = case.warm + turn * batch
                wanted = made[at : at + batch] if case.once else dice.choices(made, k=batch)
                without.append(await plain.ask(wanted))
                added.append(await asked.ask(wanted) - without[-1])
        finally:
            gc.enable()
    low, middle, high = statistics.quantiles(added, n=4)
    return Cost(case, middle, (high - low) / 2, statistics.median(without) + middle, asked.refused)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", default="", metavar="NAME,NAME", help="a part of a name is enough")
    parser.add_argument("--batches", type=int, default=60, help=f"of {BATCH} requests each (default: 60)")


def main(options: argparse.Namespace, effort: Effort) -> tuple[list[Goal], bool]:
    """Print the table. A goal for each component that has a bound, and whether everything ran."""
    wanted = options.only.split(",")
    chosen = [case for case in cases() if any(part in case.name for part in wanted)]
    costs = [asyncio.run(measure(case, options.batches)) for case in chosen]
    print(render(COLUMNS, [cost.row for cost in costs]))
    goals = [cost.goal for cost in costs if not math.isnan(cost.case.bound)]
    return goals, not any(cost.refused for cost in costs)
