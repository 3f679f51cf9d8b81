"""Callers that leave at any moment, and targets that fail at any moment, take no place with them."""

import asyncio
import contextlib
import random

import pytest

from tests.wire.conftest import OK, Behind, Caller, Front, Line, Raw, Script

from .conftest import H, until

PLACES = 5


def unreliable(dice: random.Random, together: asyncio.Event) -> Script:
    """Late, early, slow, in pieces, too short, gone; what asks for `/hold` gets it with all others."""

    async def script(line: Line) -> None:
        # What uvloop says where the gateway was faster.
        with contextlib.suppress(RuntimeError):
            await serve(line)

    async def serve(line: Line) -> None:
        while True:
            head = await line.head()
            if b" /hold " in head:
                await together.wait()
                line.say(OK)
                continue
            size = int(head.partition(b"content-length: ")[2].partition(b"\r")[0] or b"0")
            chance = dice.random()
            if chance < 0.1:
                line.say(b"HTTP/1.1 401 No\r\ncontent-length: 2\r\n\r\nno")
                await line.reader.readexactly(size)
                continue
            await line.reader.readexactly(size)
            if chance < 0.2:
                return
            await asyncio.sleep(dice.choice([0, 0, 0.003, 0.01, 0.3]))
            body = bytes(dice.choice([0, 10, 100_000]))
            if chance < 0.3:
                line.say(H + b"content-length: %d\r\n\r\n" % (len(body) + 1) + body)
                await line.writer.drain()
                return
            line.say(H + b"transfer-encoding: chunked\r\n\r\n")
            for _ in range(3):
                line.say(b"3\r\nabc\r\n")
                await asyncio.sleep(dice.choice([0, 0.002]))
            line.say(b"0\r\n\r\n")
            if chance > 0.9:
                return

    return script


@pytest.mark.parametrize("transport", ["http1", "httpx"])
async def test_every_place_is_there_when_all_are_gone(
    transport: str, upstream: Behind, front: Front, caplog: pytest.LogCaptureFixture
) -> None:
    dice, together = random.Random(11), asyncio.Event()
    up = await upstream(unreliable(dice, together))
    pool = {"max_connections": PLACES, "wait": "60ms", "max_waiting": 50, "keep_alive": "20ms"}
    timeout = {"total": "240ms", "head": "120ms", "idle": "120ms"}
    serving = await front(up, transport=transport, pool=pool, timeout=timeout, ejection=None)

    async def come_and_go() -> None:
        for _ in range(40):
            caller = await serving.caller()
            method, body = dice.choice(
                [("GET", b""), ("POST", bytes(100_000)), ("POST", b"x"), ("HEAD", b"")]
            )
            with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError, ConnectionError):
                async with asyncio.timeout(dice.choice([0.2, 0.02, 0.002])):
                    await caller.ask(method=method, body=body)
            caller.leave()

    await asyncio.gather(*(come_and_go() for _ in range(15)))
    await until(lambda: not serving.state.tasks)
    callers = [await serving.caller() for _ in range(PLACES)]
    # A place that is just being left is free in a moment; one that is lost never is.
    while not await at_once(callers, up, together):
        await asyncio.sleep(0.02)
    assert not [each for each in caplog.records if (each.name, each.levelname) == ("asgi_gateway", "ERROR")]


async def at_once(callers: list[Caller], up: Raw, together: asyncio.Event) -> bool:
    """Whether the requests of all of them are at the target at one time."""
    up.heads.clear()
    together.clear()
    asked = [asyncio.ensure_future(caller.ask("/hold")) for caller in callers]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            await until(lambda: len(up.heads) == len(callers))
    arrived = len(up.heads)
    together.set()
    answers = await asyncio.gather(*asked)
    return arrived == len(callers) and all(answer.status == 200 for answer in answers)
