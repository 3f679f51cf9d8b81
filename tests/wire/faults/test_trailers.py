"""The trailers of an answer reach who asked for them, and nobody else."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from uvicorn import Config
from uvicorn import Server as Uvicorn

from asgi_gateway.gateway import Gateway
from tests.wire.conftest import Behind, Caller, Front, Line, Raw, Script

from .conftest import H

FORBIDDEN = (
    b"Content-Length: 5",
    b"Transfer-Encoding: chunked",
    b"Set-Cookie: a=b",
    b"Connection: close",
    b"Host: x",
    b"Authorization: x",
    b"Cache-Control: x",
    b"Trailer: x",
    b"Content-Type: x",
)


def trailing(*fields: bytes) -> Script:
    async def script(line: Line) -> None:
        while True:
            await line.head()
            line.say(H + b"Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n")
            line.say(b"".join(field + b"\r\n" for field in fields) + b"\r\n")

    return script


async def tail(caller: Caller) -> bytes:
    """The end of a body in chunks, byte by byte."""
    await caller.head()
    return await caller.reader.readuntil(b"\r\n\r\n")


@pytest.mark.parametrize("te", ["TE: trailers", "TE: gzip;q=0.5, Trailers"])
async def test_trailers_reach_who_takes_them(te: str, upstream: Behind, front: Front) -> None:
    up = await upstream(trailing(b"X-Sum: \t a b", b"x-Two: 1", b"X-Two: 2", b"X-Empty:"))
    caller = await (await front(up)).caller()
    for _ in range(2):
        caller.say("/", te)
        assert await tail(caller) == (
            b"2\r\nok\r\n0\r\nx-sum: a b\r\nx-two: 1\r\nx-two: 2\r\nx-empty: \r\n\r\n"
        )
    assert all(b"\r\nte: trailers\r\nconnection: te\r\n" in head for head in up.heads)
    assert up.connections == 1


async def test_trailers_are_dropped_where_nobody_asked_for_them(upstream: Behind, front: Front) -> None:
    up = await upstream(trailing(b"X-Sum: 1"))
    caller = await (await front(up)).caller()
    for fields in ((), ("TE: gzip",), ("X-TE: trailers",)):
        caller.say("/", *fields)
        assert await tail(caller) == b"2\r\nok\r\n0\r\n\r\n"
    assert not any(b"\r\nte:" in head or b"\r\nconnection:" in head for head in up.heads)


@pytest.mark.parametrize("field", FORBIDDEN)
async def test_what_counts_in_a_head_only_is_no_trailer(field: bytes, upstream: Behind, front: Front) -> None:
    up = await upstream(trailing(b"X-Before: 1", field, b"X-After: 2"))
    caller = await (await front(up)).caller()
    caller.say("/", "TE: trailers")
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        assert await tail(caller) == b"2\r\nok\r\n0\r\nx-before: 1\r\nx-after: 2\r\n\r\n"
        return
    # The parser takes a length behind chunks for two framings.
    assert field.startswith((b"Content-Length", b"Transfer-Encoding"))


async def test_a_caller_of_http_1_0_gets_no_trailers(upstream: Behind, front: Front) -> None:
    up = await upstream(trailing(b"X-Sum: 1"))
    caller = await (await front(up)).caller()
    caller.writer.write(b"GET / HTTP/1.0\r\nHost: gw.test\r\nTE: trailers\r\n\r\n")
    answer = await caller.answer()
    assert (answer.body, answer.all(b"transfer-encoding")) == (b"ok", [])
    assert b"x-sum" not in answer.body


async def test_an_answer_of_known_length_has_no_trailers(upstream: Behind, front: Front) -> None:
    caller = await (await front(await upstream())).caller()
    for method in ("GET", "HEAD", "GET"):
        assert (await caller.ask("/", "TE: trailers", method=method)).status == 200


@pytest.mark.parametrize("fields", [(), (b"X-Sum: 1",)])
async def test_an_answer_in_chunks_ends_with_and_without_trailers(
    fields: tuple[bytes, ...], upstream: Behind, front: Front
) -> None:
    caller = await (await front(await upstream(trailing(*fields)))).caller()
    for method in ("GET", "HEAD", "GET"):
        answer = await caller.ask("/", "TE: trailers", method=method)
        if method == "GET" and fields:
            assert await caller.reader.readline() == b"\r\n"
        assert answer.body == (b"ok" if method == "GET" else b"")


@contextlib.asynccontextmanager
async def uvicorn(upstream: Raw) -> AsyncIterator[int]:
    """A gateway in a server that sends no trailers."""
    up = {"up": {"targets": [upstream.url]}}
    gateway = Gateway.parse({"upstreams": up, "routes": [{"name": "all", "path": "/*", "upstream": "up"}]})
    server = Uvicorn(Config(gateway, port=0, log_config=None, http="httptools"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.001)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await serving


async def test_a_server_that_sends_no_trailers_is_given_none(upstream: Behind) -> None:
    up = await upstream(trailing(b"X-Sum: 1"))
    async with uvicorn(up) as port:
        caller = Caller(*await asyncio.open_connection("127.0.0.1", port))
        caller.say("/", "TE: trailers")
        assert await tail(caller) == b"2\r\nok\r\n0\r\n\r\n"
        caller.leave()
    assert b"\r\nte:" not in up.heads[0]
