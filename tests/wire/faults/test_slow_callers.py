"""A caller who is slow pays for it alone: no connection to a target waits for it, and no target is blamed."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from websockets.asyncio.client import connect

from asgi_gateway.asgi import Receive, Scope, Send
from asgi_gateway.gateway import Gateway
from tests.wire.conftest import OK, Behind, Front, Line, Serving, served

from .conftest import Deaf, H, until

EVENTS = [(b"content-type", b"text/event-stream")]
SLOW = {"server": {"limits": {"send": "100ms"}, "keep_alive": "100ms"}}


def event(number: int, large: bool) -> bytes:
    return b"data: %d%b\n\n" % (number, bytes(60_000) if large else b"")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """An event stream with as many events as the path says, and a WebSocket that says one word at its end."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await send({"type": "websocket.send", "text": "last"})
        return
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
    many = scope["query_string"] == b"many"
    for number in range(int(scope["path"][1:])):
        await send({"type": "http.response.body", "body": event(number, many), "more_body": True})
        await asyncio.sleep(0 if many else 0.02)
    if scope["query_string"] == b"silent":
        await asyncio.Event().wait()
    await send({"type": "http.response.body", "body": b""})


async def events(line: Line) -> None:
    """The same over HTTP."""
    _, target, *_ = (await line.head()).split()
    number, _, query = target[1:].partition(b"?")
    line.say(H + b"content-type: text/event-stream\r\n\r\n")
    for each in range(int(number)):
        line.say(event(each, query == b"many"))
        await line.writer.drain()
        await asyncio.sleep(0 if query == b"many" else 0.02)
    if query == b"silent":
        await line.gone()


@pytest.fixture(params=["a service", "an app"])
async def streaming(
    request: pytest.FixtureRequest, upstream: Behind, front: Front, stack: AsyncExitStack
) -> AsyncIterator[Any]:
    """An upstream of event streams with these timeouts, behind either kind of target."""

    async def streaming(**timeout: str) -> Serving:
        if request.param == "a service":
            return await front(await upstream(events), timeout=timeout)
        up = {"asgi": "tests.wire.faults.test_slow_callers:app", "timeout": timeout}
        routes = [{"name": "all", "path": "/*", "upstream": "up"}]
        return await stack.enter_async_context(
            served(Gateway.parse({"upstreams": {"up": up}, "routes": routes}))
        )

    return streaming


# M6


async def test_an_event_stream_is_not_cut_at_the_end_of_the_whole_call(streaming: Any) -> None:
    caller = await (await streaming(total="80ms")).caller()
    assert (await caller.ask("/10")).body.count(b"data") == 10


async def test_an_event_stream_that_is_silent_for_too_long_is_cut(streaming: Any) -> None:
    caller = await (await streaming(total="1h", stream="200ms")).caller()
    caller.say("/10?silent")
    await caller.head()
    await caller.reader.readuntil(b"data: 9\n\n\r\n")
    with pytest.raises(ConnectionError):
        await caller.reader.readuntil(b"\r\n0\r\n\r\n")


async def test_an_event_stream_that_lives_is_not_cut_as_silent(streaming: Any) -> None:
    caller = await (await streaming(total="80ms", stream="250ms")).caller()
    assert (await caller.ask("/15")).body.count(b"data") == 15


async def test_an_event_stream_is_not_silent_while_its_caller_does_not_read(streaming: Any) -> None:
    serving = await streaming(total="80ms", stream="100ms")
    deaf = Deaf(serving.port, 200_000)
    deaf.say("/200?many")
    await asyncio.sleep(0.4)
    got = bytearray()
    while not got.endswith(b"\r\n0\r\n\r\n"):
        got += await deaf.read(1_000_000)
    assert got.count(b"data: ") == 200
    deaf.leave()


async def test_a_websocket_of_an_app_is_not_cut_at_the_end_of_the_whole_call() -> None:
    up = {"asgi": "tests.wire.faults.test_slow_callers:app", "timeout": {"total": "100ms"}}
    routes = [{"name": "all", "path": "/*", "upstream": "up", "websocket": True}]
    async with (
        served(Gateway.parse({"upstreams": {"up": up}, "routes": routes})) as serving,
        connect(f"ws://127.0.0.1:{serving.port}/", proxy=None) as socket,
    ):
        await asyncio.sleep(0.3)
        await socket.send("now")
        assert await socket.recv() == "last"


# M1, M2


async def test_callers_that_only_send_a_head_hold_no_connection(upstream: Behind, narrow: Front) -> None:
    up = await upstream()
    serving = await narrow(up)
    for framing in ("Content-Length: 5", "Transfer-Encoding: chunked"):
        for _ in range(5):
            (await serving.caller()).say("/", framing, method="POST")
    await until(lambda: len(serving.state.tasks) == 10)
    assert (await (await serving.caller()).ask()).status == 200
    assert (up.connections, len(up.heads)) == (1, 1)


@pytest.mark.parametrize("first", [b"", b"some"])
async def test_uploads_that_stop_do_not_count_against_targets(
    first: bytes, upstream: Behind, front: Front
) -> None:
    async def script(line: Line) -> None:
        while True:
            head = await line.head()
            if b"POST" in head:
                await line.gone()
            line.say(OK)

    ups = [await upstream(script) for _ in range(2)]
    ejection = {"failures": 1, "duration": "1h", "max_percent": 50}
    serving = await front(*ups, ejection=ejection, timeout={"total": "100ms", "head": "100ms"})
    callers = [await serving.caller() for _ in range(8)]
    for caller in callers:
        caller.say("/", "Content-Length: 100", method="POST")
        caller.writer.write(first)
    answers = [await caller.answer() for caller in callers]
    assert {(each.status, json.loads(each.body)["reason"]) for each in answers} == {(504, "total_timeout")}
    before = [sum(b"GET" in head for head in up.heads) for up in ups]
    assert before == [0, 0]
    caller = await serving.caller()
    for _ in range(4):
        assert (await caller.ask()).status == 200
    assert [sum(b"GET" in head for head in up.heads) for up in ups] == [2, 2]


async def test_a_slow_upload_is_not_the_fault_of_a_target_that_waits_for_it(
    upstream: Behind, narrow: Front
) -> None:
    """The time for the head of an answer begins when the whole request is out."""

    async def script(line: Line) -> None:
        await line.head()
        await line.reader.readexactly(10)
        line.say(OK)

    serving = await narrow(
        await upstream(script), timeout={"head": "100ms", "write": "100ms", "idle": "100ms"}
    )
    caller = await serving.caller()
    caller.say("/", "Content-Length: 10", method="POST")
    for _ in range(10):
        await asyncio.sleep(0.03)
        caller.writer.write(b"x")
    assert (await caller.answer()).status == 200


# M4


async def floods(line: Line) -> None:
    await line.head()
    line.say(H + b"content-type: text/event-stream\r\n\r\n")
    while True:
        line.say(b"data: " + bytes(60_000) + b"\n\n")
        await line.writer.drain()


async def answers_big(line: Line) -> None:
    while True:
        size = int((await line.head()).split()[1][1:] or b"0")
        line.say(H + b"content-length: %d\r\n\r\n" % size + bytes(size))


async def test_an_event_stream_that_its_caller_does_not_read_gives_its_place_back(
    upstream: Behind, narrow: Front
) -> None:
    async def script(line: Line) -> None:
        if line.upstream.connections == 1:
            await floods(line)
        await answers_big(line)

    serving = await narrow(await upstream(script), config=SLOW, timeout={"total": "1h"}, pool={"wait": "15s"})
    deaf = Deaf(serving.port)
    deaf.say()
    assert await deaf.read(10)
    assert (await (await serving.caller()).ask("/2")).status == 200
    await until(lambda: len(serving.state.connections) == 1)
    deaf.leave()


@pytest.mark.parametrize("last", [(), ("Connection: close",)])
@pytest.mark.parametrize("size", [100_000, 2_700_000, 20_000_000])
async def test_an_answer_whose_caller_never_reads_ends(
    size: int, last: tuple[str, ...], upstream: Behind, narrow: Front
) -> None:
    """Also where it waits for its caller as a whole, and where its rest does."""
    serving = await narrow(await upstream(answers_big), config=SLOW, timeout={"total": "1h"})
    deaf = Deaf(serving.port)
    deaf.say(f"/{size}", *last)
    assert await deaf.read(10)
    await until(lambda: not serving.state.connections)
    assert (await (await serving.caller()).ask("/2")).status == 200
    deaf.leave()


async def test_the_connection_of_a_target_does_not_wait_for_a_slow_caller_who_got_all(
    upstream: Behind, narrow: Front
) -> None:
    serving = await narrow(await upstream(answers_big))
    deaf = Deaf(serving.port)
    deaf.say("/100000")
    assert await deaf.read(10)
    assert (await (await serving.caller()).ask("/2")).status == 200
    deaf.leave()
