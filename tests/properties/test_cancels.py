"""Thousands of callers who leave at random moments, over real sockets (P31)."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop

from asgi_gateway.call import Call, closed
from asgi_gateway.errors import UpstreamError
from asgi_gateway.origin import Origin
from asgi_gateway.transport.connections import Http1
from tests.properties.profile import NIGHTLY

Factory = Callable[[], asyncio.AbstractEventLoop]
LOOPS: list[Factory] = [asyncio.new_event_loop, uvloop.new_event_loop]

CALLERS = 50_000 if NIGHTLY else 5_000
AT_ONCE = 50
MOST = 10
SLOWNESS = 0.004
"""Seconds that the target takes at most, and in which a caller leaves."""


def open_files() -> int:
    return len(os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"))


class Lines(set["Slow"]):
    """The open connections of a target."""

    calm = False
    """Whether it does not hang up any more."""


class Slow(asyncio.Protocol):
    """A target that answers in two pieces, late, and hangs up now and then."""

    def __init__(self, dice: random.Random, lines: Lines) -> None:
        self.dice = dice
        self.lines = lines

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.lines.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lines.discard(self)

    def data_received(self, data: bytes) -> None:
        self.later(self.begin, b"for " + data.split(b" ", 2)[1])

    def begin(self, body: bytes) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body))
        self.later(self.end, body)

    def end(self, body: bytes) -> None:
        self.transport.write(body)
        if self.dice.random() < 0.05:
            self.later(self.hang_up)

    def hang_up(self) -> None:
        if not self.lines.calm:
            self.transport.close()

    def later(self, what: Callable[..., None], *arguments: bytes) -> None:
        def act() -> None:
            if not self.transport.is_closing():
                what(*arguments)

        asyncio.get_running_loop().call_later(self.dice.random() * SLOWNESS / 2, act)


@asynccontextmanager
async def slow_target(dice: random.Random) -> AsyncIterator[tuple[Origin, Lines]]:
    lines = Lines()
    server = await asyncio.get_running_loop().create_server(lambda: Slow(dice, lines), "127.0.0.1", 0)
    async with server:
        try:
            yield Origin.read(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"), lines
        finally:
            for line in lines:
                line.transport.abort()
            while lines:
                await asyncio.sleep(0.001)


async def ask(pool: Http1, number: int) -> str:
    path = b"/%d" % number
    head = b"GET %b HTTP/1.1\r\nhost: a\r\n\r\n" % path
    try:
        answer = await pool.send("GET", head, None, Call("u", closed, 0.0, float("inf"), None))
        try:
            body, complete = answer.take(), answer.complete
            while not complete:
                body += await answer.read()
                complete = answer.complete
                body += answer.take()
        finally:
            answer.close()
    except UpstreamError as error:
        return error.reason
    assert body == b"for " + path, "the answer is somebody else's"
    return "answered"


@pytest.mark.parametrize(
    "factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
def test_thousands_of_callers_who_leave_at_random_leave_nothing_behind(factory: Factory) -> None:
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(leave_at_random())


async def leave_at_random() -> None:
    dice = random.Random(31)
    loop = asyncio.get_running_loop()
    numbers = iter(range(CALLERS))
    outcomes: dict[str, int] = {}

    async def callers(pool: Http1) -> None:
        for number in numbers:
            task = loop.create_task(ask(pool, number))
            # Some stay, however slow the machine is.
            patience = dice.random() * SLOWNESS * 4 if dice.random() < 0.7 else 300
            leaving = loop.call_later(patience, task.cancel)
            try:
                outcome = await task
            except asyncio.CancelledError:
                outcome = "left"
            leaving.cancel()
            outcomes[outcome] = outcomes.get(outcome, 0) + 1

    async with slow_target(dice) as (origin, lines), asyncio.timeout(300):
        before = open_files()
        pool = Http1(origin, max_connections=MOST, max_waiting=AT_ONCE)
        try:
            await asyncio.gather(*(callers(pool) for _ in range(AT_ONCE)))
            assert sum(outcomes.values()) == CALLERS
            assert set(outcomes) <= {"answered", "left", "reset"}
            assert min(outcomes["answered"], outcomes["left"]) > CALLERS // 10
            assert pool._connecting == len(pool._waiting) == 0
            assert set(pool._idle) == pool._all
            # Each of the slots is still there, all at once. A request that is sent in the moment in which its
            # connection ends may rightly fail, as some did above: from now on none ends.
            lines.calm = True
            found = await asyncio.gather(*(ask(pool, CALLERS + number) for number in range(MOST)))
            assert found == ["answered"] * MOST
        finally:
            await pool.aclose()
        while lines:
            await asyncio.sleep(0.001)
        assert open_files() == before
