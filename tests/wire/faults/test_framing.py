"""Where a request and an answer end is the same for everybody, and neither is without bounds."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from asgi_gateway.asgi import ASGIApp, Message, Receive, Scope, Send
from tests.wire.conftest import OK, Behind, Front, Line

from .conftest import H, until

TEN = b"0123456789"


class Changed:
    """A middleware that makes of the body of a request whatever it is told to."""

    def __init__(self, app: ASGIApp, pieces: Iterable[str]) -> None:
        self._app = app
        self._pieces = [piece.encode() for piece in pieces]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        left = list(self._pieces)

        async def changed() -> Message:
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

        await self._app(scope, changed, send)


def changed(*pieces: str) -> Mapping[str, Any]:
    options = {"cls": "tests.wire.faults.test_framing:Changed", "stage": "TRANSFORM"}
    return {"components": [{"middleware": {**options, "options": {"pieces": pieces}}}]}


# H1


@pytest.mark.parametrize("framing", [b"Content-Length: 2 \t ", b"Transfer-Encoding: chunked  "])
async def test_blanks_behind_the_framing_of_a_request_are_none_of_it(
    framing: bytes, upstream: Behind, narrow: Front
) -> None:
    async def script(line: Line) -> None:
        while True:
            head = await line.head()
            assert b"content-length: 2\r\n" in head
            bodies.append(await line.reader.readexactly(2))
            line.say(OK)

    bodies: list[bytes] = []
    up = await upstream(script)
    caller = await (await narrow(up)).caller()
    body = b"2\r\nhi\r\n0\r\n\r\n" if b"chunked" in framing else b"hi"
    for _ in range(2):
        caller.writer.write(b"POST / HTTP/1.1\r\nHost: gw.test\r\n" + framing + b"\r\n\r\n" + body)
        assert (await caller.answer()).status == 200
    assert (bodies, up.connections) == ([b"hi", b"hi"], 1)


@pytest.mark.parametrize(
    "said",
    [
        b"content-length: 2 \t \r\n\r\nok",
        b"content-length:\t2\r\n\r\nok",
        b"transfer-encoding: chunked  \r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"transfer-encoding: CHUNKED\r\n\r\n2;a=b\r\nok\r\n0\r\n\r\n",
    ],
)
async def test_blanks_around_the_framing_of_an_answer_are_none_of_it(
    said: bytes, upstream: Behind, narrow: Front
) -> None:
    async def script(line: Line) -> None:
        while True:
            await line.head()
            line.say(H + said)

    up = await upstream(script)
    caller = await (await narrow(up)).caller()
    for _ in range(2):
        assert (await caller.ask()).body == b"ok"
    assert up.connections == 1


# H2


@pytest.mark.parametrize(
    "framing",
    [
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked;q=1",
        b"Transfer-Encoding: chunked\t",
        b"Transfer-Encoding: ",
        b"Transfer-Encoding: chunked\r\nContent-Length: 2",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked",
        b"Content-Length: 2\r\nContent-Length: 2",
        b"Content-Length: 2, 2",
        b"Content-Length: +2",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_framing_that_may_mean_something_else_is_502_and_not_used_again(
    method: str, framing: bytes, upstream: Behind, narrow: Front
) -> None:
    async def script(line: Line) -> None:
        await line.head()
        if line.upstream.connections == 1:
            line.say(H + framing + b"\r\n\r\n" + (b"" if method == "HEAD" else b"2\r\nok\r\n0\r\n\r\n"))
            await line.gone()
        line.say(OK)

    up = await upstream(script)
    caller = await (await narrow(up)).caller()
    assert (await caller.ask("/", method=method)).status == 502
    assert (await caller.ask()).body == b"ok"
    assert up.connections == 2


# H6, L6


@pytest.mark.parametrize(
    "pieces",
    [
        (TEN.decode() + "GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n",),
        (TEN.decode(), "GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"),
        ("0123", "456789GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"),
        ("01",),
        ("0123", "45"),
        ("", ""),
    ],
)
@pytest.mark.parametrize("early", [False, True])
async def test_a_body_that_is_not_as_long_as_its_head_says_smuggles_nothing(
    early: bool, pieces: tuple[str, ...], upstream: Behind, narrow: Front
) -> None:
    async def script(line: Line) -> None:
        while True:
            if (head := await line.head()).startswith(b"POST"):
                if early:
                    line.say(OK)
                await line.reader.readexactly(10)
            if not (early and head.startswith(b"POST")):
                line.say(OK)

    up = await upstream(script)
    serving = await narrow(up, route=changed(*pieces))
    caller = await serving.caller()
    caller.say("/", method="POST", body=TEN)
    try:
        assert (await caller.answer()).status in (200, 500) if early else (500,)
    except (asyncio.IncompleteReadError, ConnectionError):
        assert early
    assert (await (await serving.caller()).ask("/next")).status == 200
    assert [head.split()[1] for head in up.heads if b"POST" not in head] == [b"/next"]


async def test_an_empty_body_in_chunks_goes_up_as_no_body(upstream: Behind, narrow: Front) -> None:
    up = await upstream()
    caller = await (await narrow(up)).caller()
    for _ in range(2):
        caller.say("/", "Transfer-Encoding: chunked", method="POST")
        caller.writer.write(b"0\r\n\r\n")
        assert (await caller.answer()).status == 200
    assert all(b"\r\ncontent-length: 0\r\n" in head for head in up.heads)
    assert not any(b"transfer-encoding" in head for head in up.heads)


# H7


@pytest.mark.parametrize(
    ("begin", "again"),
    [
        (H + b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", b"x-trailer: %b\r\n" % TEN * 100),
        (H + b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: ", TEN * 100),
        (H + b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n2;", TEN * 100),
        (H + b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n", b"0" * 1000),
        (b"", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 100),
        (H, b"x-field: %b\r\n" % TEN * 100),
        (H + b"x: ", TEN * 100),
    ],
)
async def test_what_an_answer_says_beside_its_body_is_bounded(
    begin: bytes, again: bytes, upstream: Behind, narrow: Front
) -> None:
    said = [0]

    async def script(line: Line) -> None:
        await line.head()
        line.say(begin)
        try:
            while True:
                line.say(again)
                await line.writer.drain()
                said[0] += len(again)
        finally:
            line.upstream.closed.set()

    up = await upstream(script)
    serving = await narrow(up, timeout={"head": "1h", "idle": "1h", "total": "1h"})
    caller = await serving.caller()
    caller.say()
    try:
        assert (await caller.answer()).status == 502
        assert begin in (b"", H, H + b"x: ")
    except (asyncio.IncompleteReadError, ConnectionError):
        assert b"chunked" in begin
    await up.closed.wait()
    # Much of it is what both systems hold.
    assert said[0] < 16_000_000


async def test_many_small_pieces_whose_sizes_come_alone_are_no_abuse(upstream: Behind, narrow: Front) -> None:
    """More than 64 KiB of sizes and ends of chunks in sum, each in a segment of its own."""
    events = 9_000
    body = b"data: 1\n\n"

    async def script(line: Line) -> None:
        await line.head()
        line.say(H + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(events):
            for piece in (b"%04x" % len(body) + b"\r\n", body, b"\r\n"):
                line.say(piece)
                # Lets the gateway read it before the next one comes.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        line.say(b"0\r\n\r\n")

    caller = await (await narrow(await upstream(script))).caller()
    assert len((await caller.ask()).body) == events * len(body)


async def test_the_first_byte_arrives_before_the_second_exists(upstream: Behind, narrow: Front) -> None:
    step = asyncio.Semaphore(0)

    async def script(line: Line) -> None:
        await line.head()
        line.say(H + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n")
        await step.acquire()
        line.say(b"1\r\nb\r\n")
        await step.acquire()
        line.say(b"0\r\n\r\n")

    caller = await (await narrow(await upstream(script))).caller()
    caller.say()
    await caller.head()
    for piece in (b"1\r\na\r\n", b"1\r\nb\r\n", b"0\r\n\r\n"):
        assert await caller.reader.readexactly(len(piece)) == piece
        step.release()


async def test_events_come_one_by_one(upstream: Behind, narrow: Front) -> None:
    step = asyncio.Semaphore(1)

    async def script(line: Line) -> None:
        await line.head()
        line.say(H + b"content-type: text/event-stream\r\n\r\n")
        for number in range(20):
            await step.acquire()
            line.say(b"data: %d\n\n" % number)

    caller = await (await narrow(await upstream(script))).caller()
    caller.say()
    await caller.head()
    for number in range(20):
        event = await caller.reader.readuntil(b"\n\n\r\n")
        assert event.endswith(b"data: %d\n\n\r\n" % number)
        assert event.count(b"data") == 1
        step.release()


async def test_an_upload_goes_up_piece_by_piece(upstream: Behind, narrow: Front) -> None:
    got = bytearray()

    async def script(line: Line) -> None:
        await line.head()
        while len(got) < 3:
            got.extend(await line.reader.read(100))
        line.say(OK)

    caller = await (await narrow(await upstream(script))).caller()
    caller.say("/", "Content-Length: 3", method="POST")
    for size in (1, 2, 3):
        caller.writer.write(b"x")
        await until(lambda: len(got) == size)  # noqa: B023  # it is awaited at once
    assert (await caller.answer()).status == 200
