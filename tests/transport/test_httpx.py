"""httpx as the transport of an upstream: what goes over the wire, and what its failures are called."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from asgi_gateway.asgi import Message
from asgi_gateway.call import Call, closed
from asgi_gateway.clock import Clock
from asgi_gateway.config import Upstream
from asgi_gateway.errors import CallerLeft, UpstreamError
from asgi_gateway.origin import Origin
from asgi_gateway.transport.httpx import HttpxTransport, translated
from tests.peers import peer

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
GET = b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: a.test\r\n\r\n"


@contextlib.asynccontextmanager
async def to(serve: Serve, **timeout: str) -> AsyncIterator[HttpxTransport]:
    """A transport to a server that speaks raw bytes."""
    done = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            done.set()

    async with peer(connected) as port:
        transport = made(Origin.read(f"http://127.0.0.1:{port}"), timeout)
        try:
            yield transport
        finally:
            await transport.aclose()
            await done.wait()


def made(origin: Origin, timeout: dict[str, str]) -> HttpxTransport:
    options = Upstream.model_validate({"targets": [str(origin)], "timeout": timeout})
    return HttpxTransport.make("httpx", origin, options, Clock())


def a_call() -> Call:
    return Call("u", closed, 0.0, float("inf"), None)


async def read_all(transport: HttpxTransport) -> None:
    answer = await transport.send("GET", GET, None, a_call())
    try:
        while await answer.read():
            pass
    finally:
        answer.close()


async def test_the_request_line_and_the_fields_arrive_byte_by_byte_and_so_does_the_answer() -> None:
    seen = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set_result(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nset-cookie: \xfc\r\nContent-Length: 2\r\n\r\nhi")

    head = (
        b"GET /a%2fb/%C3%bc;x?q=%20&q HTTP/1.1\r\nhost: a.test\r\nx-one: 1\r\nx-two: \xfc\r\nx-one: 2\r\n\r\n"
    )
    call = a_call()
    async with to(serve) as transport:
        answer = await transport.send("GET", head, None, call)
        assert (answer.status, await answer.read(), answer.complete) == (200, b"hi", False)
        assert (await answer.read(), answer.complete) == (b"", True)
        answer.close()
    assert await seen == head
    assert answer.headers == [(b"set-cookie", b"a"), (b"set-cookie", b"\xfc"), (b"content-length", b"2")]
    assert call.body_read


async def test_bodies_stream_both_ways() -> None:
    came, more = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert b"transfer-encoding: chunked" in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readuntil(b"one\r\n") == b"3\r\none\r\n"
        came.set()
        assert await reader.readuntil(b"0\r\n\r\n") == b"3\r\ntwo\r\n0\r\n\r\n"
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
        await more.wait()
        writer.write(b"1\r\nb\r\n0\r\n\r\n")

    messages: list[Message] = [{"type": "http.request", "body": b"one", "more_body": True}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        # The second piece does not exist before the first one has arrived.
        await came.wait()
        return {"type": "http.request", "body": b"two"}

    call = a_call()
    async with to(serve) as transport:
        answer = await transport.send("POST", POST, receive, call)
        assert call.body_read
        assert await answer.read() == b"a"
        more.set()
        assert (await answer.read(), await answer.read()) == (b"b", b"")
        answer.close()


async def test_a_body_that_is_there_gets_a_length() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readuntil(b"all")).endswith(b"content-length: 3\r\n\r\nall")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async def receive() -> Message:
        return {"type": "http.request", "body": b"all"}

    async with to(serve) as transport:
        answer = await transport.send("POST", POST, receive, a_call())
        assert (answer.status, await answer.read(), answer.complete) == (204, b"", True)
        answer.close()


async def test_a_caller_who_leaves_in_the_middle_of_the_body_ends_the_request() -> None:
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        gone.set()

    messages: list[Message] = [
        {"type": "http.disconnect"},
        {"type": "http.request", "body": b"one", "more_body": True},
    ]

    async def receive() -> Message:
        return messages.pop()

    async with to(serve) as transport:
        with pytest.raises(CallerLeft):
            await transport.send("POST", POST, receive, a_call())
        await gone.wait()


async def test_an_answer_that_is_let_go_of_takes_its_connection_along() -> None:
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\none")
        await reader.readuntil(b"\r\n\r\n")
        await reader.read()
        gone.set()

    async with to(serve) as transport:
        answer = await transport.send("GET", GET, None, a_call())
        assert await answer.read() == b"one"
        answer.close()
        await gone.wait()


@pytest.mark.parametrize(
    ("said", "reason", "phase"),
    [
        (b"", "reset", "head"),
        (b"nonsense\r\n\r\n", "protocol_error", "head"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            "protocol_error",
            "head",
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\none", "reset", "body"),
    ],
)
async def test_what_goes_wrong_has_a_name_and_a_phase(said: bytes, reason: str, phase: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)

    async with to(serve) as transport:
        with pytest.raises(UpstreamError) as failed:
            await read_all(transport)
    assert (failed.value.reason, failed.value.phase, failed.value.sent) == (reason, phase, True)


async def test_a_target_that_says_nothing_is_a_timeout() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with to(serve, idle="50ms", head="50ms") as transport:
        with pytest.raises(UpstreamError) as failed:
            await transport.send("GET", GET, None, a_call())
    assert (failed.value.reason, failed.value.phase, failed.value.status) == ("head_timeout", "head", 504)


async def test_a_target_that_is_not_there_was_not_asked() -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    transport = made(Origin.read(f"http://127.0.0.1:{port}"), {})
    with pytest.raises(UpstreamError) as failed:
        await transport.send("GET", GET, None, a_call())
    assert (failed.value.reason, failed.value.status, failed.value.sent) == ("connect_failed", 502, False)
    await transport.aclose()


@pytest.mark.parametrize(
    ("error", "reason", "sent"),
    [
        (httpx.PoolTimeout(""), "pool_timeout", False),
        (httpx.ConnectTimeout(""), "connect_timeout", False),
        (httpx.WriteTimeout(""), "write_timeout", True),
        (httpx.WriteError(""), "reset", True),
        (httpx.ReadError(""), "reset", True),
        (httpx.LocalProtocolError(""), "protocol_error", True),
    ],
)
def test_every_exception_of_httpx_has_a_reason(error: httpx.TransportError, reason: str, sent: bool) -> None:
    told = translated(error, "head")
    assert (told.reason, told.sent) == (reason, sent)
