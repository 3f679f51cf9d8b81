"""A caller who leaves ends what is done for it, in every phase, and nothing stays behind (P31)."""

import asyncio
import json
import random
import socket
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.measuring import NIGHTLY, linux, open_files, until
from tests.processes import Running, gateway
from tests.wire.conftest import OK, Behind, Caller, Line
from tests.wire.load import leave

pytestmark = linux

TIMES = 3
CANCELS = 25_000 if NIGHTLY else 2500
"""On each event loop."""
POOL = 10
CALLERS = 40
SLOWNESS = 0.004
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome"


async def hangs(line: Line) -> None:
    """Answers /ok, begins an answer to /body, and waits for the gateway to go."""
    while True:
        head = await line.head()
        if b" /ok " in head:
            line.say(OK)
            continue
        if b" /body " in head:
            line.say(HEAD)
        await line.gone()
        return


@asynccontextmanager
async def blackhole() -> AsyncIterator[str]:
    """An address where connections are never made: its queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers: list[socket.socket] = []
        try:
            for _ in range(3):
                filler = socket.socket()
                fillers.append(filler)
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for filler in fillers:
                filler.close()


def document(up: str, hole: str) -> dict[str, Any]:
    one = {"max_connections": 1, "wait": "20s"}
    waits = {"middleware": {"cls": "tests.wire.middlewares:Waits"}}
    fields = ["path", "duration_ms", "outcome", "status"]
    return {
        "components": [{"access_log": {"fields": fields}}],
        "upstreams": {
            "up": {"targets": [up]},
            "narrow": {"targets": [up], "pool": one},
            "hole": {"targets": [hole], "timeout": {"connect": "20s"}},
        },
        "routes": [
            {"name": "all", "path": "/*", "upstream": "up"},
            {"name": "pool", "path": "/pool", "upstream": "narrow"},
            {"name": "connect", "path": "/connect", "upstream": "hole"},
            {"name": "component", "path": "/component", "upstream": "up", "components": [waits]},
        ],
    }


async def reach(one: Running) -> Caller:
    return Caller(*await asyncio.open_connection("127.0.0.1", one.port))


PHASES = ("pool", "connect", "head", "body", "upload", "component")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_who_leaves_in_any_phase_is_noticed_at_once(
    tmp_path: Path, upstream: Behind, loop: str
) -> None:
    raw = await upstream(hangs)
    async with blackhole() as hole:
        described = {**document(raw.url, hole), "server": {"loop": loop}}
        async with gateway(tmp_path, described) as one:
            warm = await reach(one)
            assert (await warm.ask("/ok")).status == 200
            await one.says('"/ok"')
            before = open_files(one.process.pid)
            # The only connection of this pool is taken.
            first = await reach(one)
            first.say("/pool")
            await until(lambda: len(raw.heads) == 2)
            holding = open_files(one.process.pid)
            for phase in PHASES:
                late = [await one_departure(one, raw, phase, holding) for _ in range(TIMES)]
                print(f"{loop} {phase}: {statistics.median(late) * 1000:.1f} ms")
                assert statistics.median(late) < 1
            await leave(first)
            await until(lambda: open_files(one.process.pid) <= before, 5)
            # Somebody else gets the connection, and all lines say that their caller left.
            second = await reach(one)
            second.say("/pool")
            heads = len(raw.heads)
            await until(lambda: len(raw.heads) > heads)
            await leave(second, warm)
            await until(lambda: len(one.out) >= 2 + len(PHASES) * TIMES)
            outcomes = {json.loads(line)["outcome"] for line in one.out[1:]}
            assert outcomes == {"caller_left"}, one
            assert len(one.err) == 1 + TIMES, one


async def one_departure(one: Running, raw: Any, phase: str, files: int) -> float:
    """Seconds from the moment in which the caller leaves until the gateway has ended the request."""
    heads, waiting, lines = len(raw.heads), one.err.count("waiting"), len(one.out)
    raw.closed.clear()
    caller = await reach(one)
    began = time.monotonic()
    if phase == "upload":
        caller.say("/upload", "Content-Length: 100000", method="POST")
        caller.writer.write(b"some")
    else:
        caller.say(f"/{phase}")
    if phase == "component":
        await until(lambda: one.err.count("waiting") > waiting)
    elif phase in ("pool", "connect"):
        # Nobody sees these: it is on its way there, and gets nowhere.
        extra = 2 if phase == "connect" else 1
        await until(lambda: open_files(one.process.pid) >= files + extra)
        await asyncio.sleep(0.01)
    else:
        await until(lambda: len(raw.heads) > heads)
    if phase == "body":
        assert (await caller.head()).status == 200
    left = time.monotonic()
    caller.leave()
    if phase in ("head", "body", "upload"):
        await raw.closed.wait()
        gone = time.monotonic() - left
    else:
        await until(lambda: len(one.out) > lines)
        told = json.loads(one.out[lines])
        assert told["path"] == f"/{phase}"
        gone = max(0.0, told["duration_ms"] / 1000 - (left - began))
    await until(lambda: len(one.out) > lines and open_files(one.process.pid) <= files)
    await leave(caller)
    return gone


async def answers_late(line: Line) -> None:
    """In two pieces; now and then it hangs up."""
    dice = random.Random(line.upstream.connections)
    while True:
        await line.head()
        await asyncio.sleep(dice.random() * SLOWNESS / 2)
        line.say(HEAD)
        await asyncio.sleep(dice.random() * SLOWNESS / 2)
        line.say(bytes(96))
        if dice.random() < 0.05:
            return


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_thousands_who_leave_at_random_leave_no_file_and_no_connection_behind(
    tmp_path: Path, upstream: Behind, loop: str
) -> None:
    raw = await upstream(answers_late)
    described: dict[str, Any] = {
        "server": {"loop": loop},
        "upstreams": {
            "up": {
                "targets": [raw.url],
                "pool": {"max_connections": POOL, "wait": "20s", "keep_alive": "1s"},
                "ejection": None,
            }
        },
        "routes": [{"name": "all", "path": "/*", "upstream": "up"}],
    }
    async with gateway(tmp_path, described) as one:
        first = await reach(one)
        assert (await first.ask()).status == 200
        await leave(first)
        dice, numbers, outcomes = random.Random(31), iter(range(CANCELS)), {"left": 0, "answered": 0}
        most = 0

        async def call() -> None:
            nonlocal most
            for number in numbers:
                caller = await reach(one)
                caller.say()
                try:
                    async with asyncio.timeout(dice.random() * SLOWNESS * 4):
                        assert (await caller.answer()).status in (200, 502)
                        outcomes["answered"] += 1
                except TimeoutError:
                    outcomes["left"] += 1
                except asyncio.IncompleteReadError:
                    pass  # the target hung up in the middle
                finally:
                    if dice.random() < 0.5:
                        caller.writer.transport.abort()
                    await leave(caller)
                if number % 100 == 0:
                    most = max(most, open_files(one.process.pid))

        async with asyncio.timeout(60):
            await asyncio.gather(*(call() for _ in range(CALLERS)))
        # All that a pool can hold is free: so many at once are answered.
        callers = [await reach(one) for _ in range(POOL)]
        answers = await asyncio.gather(*(caller.ask() for caller in callers))
        assert {answer.status for answer in answers} <= {200, 502}
        await leave(*callers)
        # Callers, targets, and what a loop needs itself.
        assert most <= CALLERS + POOL + 60
        await until(lambda: open_files(one.process.pid) <= 15, 5)
        print(f"{loop}: {outcomes}, at most {most} files")
        assert outcomes["left"] > CANCELS / 10
        assert len(one.err) == 1, one
        assert await one.stop() == 0
