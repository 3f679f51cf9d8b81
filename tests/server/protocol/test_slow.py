"""Callers that are too slow are told so and closed, and only they."""

import asyncio
import socket

import pytest

from asgi_gateway.asgi import Receive, Scope, Send, answer

from .conftest import Caller, Serve, Serving

SOON = 0.05
HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"


async def swallow(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body", False):
        pass
    await answer(scope, send, 200, b"ok")


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(scope, send, 401, b"no")


async def told(caller: Caller, reason: bytes) -> None:
    """It hears 408, and the connection ends cleanly."""
    answered = await caller.answer()
    assert (answered.status, answered[b"connection"]) == (408, [b"close"])
    assert reason in answered.body
    assert await caller.end() == b""


async def swept(server: Serving) -> None:
    """Until every connection was looked at often enough to find it too slow."""
    for _ in range(8):
        await asyncio.sleep(SOON / 4)


@pytest.mark.parametrize("answered", [False, True])
async def test_a_head_that_does_not_come_in_time_is_408(serve: Serve, answered: bool) -> None:
    async with serve(swallow, head=SOON) as server:
        caller = await server.caller()
        if answered:
            caller.get()
            await caller.answer()
        caller.say(b"GET / HTTP/1.1\r\nHost: a\r\n")
        await told(caller, b"head_timeout")


async def test_a_head_that_drips_is_408(serve: Serve) -> None:
    async with serve(swallow, head=SOON) as server:
        caller = await server.caller()
        caller.say(b"GET / HTTP/1.1\r\n")

        async def drip() -> None:
            while True:
                caller.say(b"X: a\r\n")
                await asyncio.sleep(SOON / 10)

        dripping = asyncio.create_task(drip())
        assert (await caller.answer()).status == 408
        dripping.cancel()


async def test_a_connection_on_which_nothing_ever_came_is_closed(serve: Serve) -> None:
    async with serve(swallow, head=SOON) as server:
        assert await (await server.caller()).end() == b""


async def test_an_idle_connection_has_keep_alive_and_not_the_time_of_a_head(serve: Serve) -> None:
    async with serve(swallow, head=SOON) as server:
        caller = await server.caller()
        for _ in range(2):
            caller.get()
            assert (await caller.answer()).status == 200
            await swept(server)
        assert not caller.reader.at_eof()


async def test_a_busy_connection_is_not_closed(serve: Serve) -> None:
    gate = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await answer(scope, send, 200, b"ok")

    async with serve(app, keep_alive=SOON, head=SOON, body=SOON, send=SOON) as server:
        caller = await server.caller()
        caller.get()
        await swept(server)
        gate.set()
        assert (await caller.answer()).status == 200
        assert await caller.end() == b""


async def test_a_body_that_stops_is_408(serve: Serve) -> None:
    async with serve(swallow, body=SOON, rate=1) as server:
        caller = await server.caller()
        caller.say(HEAD + b"some")
        await told(caller, b"body_timeout")


async def test_a_body_below_the_least_rate_is_408(serve: Serve) -> None:
    async with serve(swallow, body=SOON, rate=1_000_000) as server:
        caller = await server.caller()
        caller.say(HEAD)

        async def drip() -> None:
            while True:
                caller.say(b"a")
                await asyncio.sleep(SOON / 10)

        dripping = asyncio.create_task(drip())
        assert (await caller.answer()).status == 408
        dripping.cancel()


async def test_what_came_fast_does_not_pay_for_what_drips_later(serve: Serve) -> None:
    async with serve(swallow, body=SOON, rate=1_000) as server:
        caller = await server.caller()
        caller.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n" + bytes(9_000_000))

        async def drip() -> None:
            while True:
                caller.say(b"a")
                await asyncio.sleep(SOON / 10)

        dripping = asyncio.create_task(drip())
        assert (await caller.answer()).status == 408
        dripping.cancel()


async def test_a_body_with_pauses_that_keeps_the_least_rate_comes_in(serve: Serve) -> None:
    pieces, patience = 20, 0.2
    async with serve(swallow, body=patience, rate=1_000) as server:
        caller = await server.caller()
        caller.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (pieces * 100))
        for _ in range(pieces):
            await asyncio.sleep(patience / 4)
            caller.say(bytes(100))
        assert (await caller.answer()).status == 200


async def test_a_body_that_nobody_reads_is_not_the_callers_fault(serve: Serve) -> None:
    gate = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await swallow(scope, receive, send)

    async with serve(app, body=SOON) as server:
        caller = await server.caller()
        caller.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + bytes(1_000_000))
        await swept(server)
        gate.set()
        assert (await caller.answer()).status == 200


async def test_who_waits_for_100_continue_is_not_too_slow(serve: Serve) -> None:
    gate = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await swallow(scope, receive, send)

    async with serve(app, body=SOON) as server:
        caller = await server.caller()
        caller.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        await swept(server)
        gate.set()
        assert (await caller.head()).status == 100
        caller.say(b"ab")
        assert (await caller.answer()).status == 200


async def test_a_body_that_stops_after_an_early_answer_ends_the_connection(serve: Serve) -> None:
    async with serve(refuse, body=SOON) as server:
        caller = await server.caller()
        caller.say(HEAD)
        assert (await caller.answer()).status == 401
        assert await caller.end() == b""


async def test_a_body_without_end_after_an_early_answer_ends_the_connection(serve: Serve) -> None:
    async with serve(refuse) as server:
        caller = await server.caller()
        caller.say(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert (await caller.answer()).status == 401

        async def go_on() -> None:
            while True:
                caller.say(b"10000\r\n" + bytes(65536) + b"\r\n")
                await caller.writer.drain()

        with pytest.raises(ConnectionError):
            await go_on()


async def test_an_answer_that_nobody_reads_is_cut_and_the_app_is_told(serve: Serve) -> None:
    left = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
        finally:
            left.set()

    async with serve(app, send=SOON) as server, serve(swallow, send=SOON):
        with socket.create_connection(server.address) as caller:
            caller.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await left.wait()
        assert (await others(server)) is None


async def others(server: Serving) -> None:
    while server.state.connections:
        await asyncio.sleep(0)


async def test_connections_past_the_bound_are_told_503(serve: Serve) -> None:
    async with serve(swallow, most=2) as server:
        callers = [await server.caller() for _ in range(2)]
        for caller in callers:
            caller.get()
            assert (await caller.answer()).status == 200
        late = await server.caller()
        answered = await late.answer()
        assert (answered.status, answered[b"connection"]) == (503, [b"close"])
        assert b"too_many_connections" in answered.body
        assert await late.end() == b""
        callers.pop().leave()
        while len(server.state.connections) > 1:
            await asyncio.sleep(0)
        again = await server.caller()
        again.get()
        assert (await again.answer()).status == 200


class Reader:
    """A caller with small buffers that reads as much as a test says."""

    def __init__(self, server: Serving, request: bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect(server.address)
        self.socket.setblocking(False)
        self.socket.sendall(request)

    async def read(self, size: int) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self.socket, size)


async def read_all(reader: Reader) -> None:
    while await reader.read(65536):
        pass


BIG = 16_000_000


async def big(scope: Scope, receive: Receive, send: Send) -> None:
    """More than the system holds, at once: nothing is left to do for the app."""
    await answer(scope, send, 200, bytes(BIG))


@pytest.mark.parametrize("last", [b"Connection: close\r\n", b""])
async def test_the_rest_of_an_answer_that_nobody_reads_is_cut(serve: Serve, last: bytes) -> None:
    async with serve(big, send=SOON, keep_alive=SOON) as server:
        reader = Reader(server, b"GET / HTTP/1.1\r\nHost: a\r\n" + last + b"\r\n")
        await reader.read(1)
        await others(server)
        with pytest.raises(ConnectionResetError):
            await read_all(reader)
        reader.socket.close()


async def test_a_refusal_that_nobody_reads_does_not_keep_the_connection(serve: Serve) -> None:
    async with serve(big, send=SOON, keep_alive=SOON) as server:
        reader = Reader(server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\nnonsense\r\n\r\n")
        await reader.read(1)
        await others(server)
        reader.socket.close()


@pytest.mark.parametrize("how", ["in pieces", "at once", "at once, and the last"])
async def test_who_reads_slowly_gets_all(serve: Serve, how: str) -> None:
    """What the system holds for it hides from the event loop that it reads."""
    size = 1_000_000 if how == "in pieces" else BIG

    async def pieces(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": bytes(size), "more_body": True})

    last = b"Connection: close\r\n" if "last" in how else b""
    request = b"GET / HTTP/1.1\r\nHost: a\r\n" + last + b"\r\n"
    async with serve(pieces if how == "in pieces" else big, send=0.1, keep_alive=0.1, rate=10_000) as server:
        reader = Reader(server, request)
        for _ in range(40):
            assert await reader.read(2048)
            await asyncio.sleep(0.02)
        assert server.state.connections
        reader.socket.close()
