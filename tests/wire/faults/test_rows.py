"""Many callers at one time, over sockets: small writes go out in a row, each answer to its own caller."""

import asyncio

from asgi_gateway.turn import SMALL, Turn
from tests.wire.conftest import Behind, Caller, Front, Line

CALLERS, REQUESTS = 40, 12
SIZES = (0, 1, 1024, SMALL - 100, SMALL + 1, 200_000)


def body_of(path: bytes) -> bytes:
    """What is answered for /WHO/SIZE."""
    _, who, size = path.split(b"/")
    return (who + b".") * (int(size) // (len(who) + 1) + 1)


async def test_each_of_many_callers_gets_its_own_answers_in_order(upstream: Behind, front: Front) -> None:
    loop = asyncio.get_running_loop()
    rows = 0

    async def script(line: Line) -> None:
        nonlocal rows
        while True:
            head = await line.head()
            rows += Turn.of(loop).crowded
            method, path, _ = head.split(b" ", 2)
            if method == b"POST":
                assert await line.reader.readexactly(len(path)) == path
            body = body_of(path)
            if len(path) % 2:
                line.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
            else:
                line.say(
                    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(body), body)
                )
                line.say(b"0\r\n\r\n")

    serving = await front(await upstream(script), pool={"max_connections": 20})

    async def talk(caller: Caller, who: int) -> None:
        paths = [f"/{who}/{SIZES[(who + number) % len(SIZES)]}" for number in range(REQUESTS)]
        if who % 4:
            for number, path in enumerate(paths):
                body = path.encode() if number % 3 == 0 else b""
                got = await caller.ask(path, method="POST" if body else "GET", body=body)
                assert (got.status, got.body) == (200, body_of(path.encode()))
            return
        # All requests before the first answer.
        for path in paths:
            caller.say(path)
        for path in paths:
            got = await caller.answer()
            assert (got.status, got.body) == (200, body_of(path.encode()))

    callers = [await serving.caller() for _ in range(CALLERS)]
    await asyncio.gather(*(talk(caller, who) for who, caller in enumerate(callers)))
    assert rows > CALLERS
    alone = await serving.caller()
    for _ in range(3):
        assert (await alone.ask("/1/1")).body == body_of(b"/1/1")
    assert not Turn.of(loop).crowded
