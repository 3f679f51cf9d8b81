"""A WebSocket takes a connection over."""

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from asgi_gateway.asgi import Receive, Scope, Send, answer

from .conftest import DATE, Serve

HANDSHAKE = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Echoes over WebSocket; refuses on /no."""
    if scope["type"] == "http" or scope["path"] == "/no":
        await answer(scope, send, 403, b"no", [(b"date", b"Mon, 01 Jan 2024 00:00:00 GMT")])
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def test_messages_go_both_ways(serve: Serve) -> None:
    async with serve(app) as server, connect("ws://{}:{}/".format(*server.address), proxy=None) as socket:
        for text in ("one", "two"):
            await socket.send(text)
            assert await socket.recv() == text


async def test_a_refusal_has_one_date(serve: Serve) -> None:
    async with serve(app) as server:
        with pytest.raises(InvalidStatus) as refused:
            await connect("ws://{}:{}/no".format(*server.address), proxy=None)
    assert refused.value.response.status_code == 403
    assert refused.value.response.headers.get_all("date") == ["Mon, 01 Jan 2024 00:00:00 GMT"]


async def test_a_connection_that_served_requests_may_become_a_websocket(serve: Serve) -> None:
    async with serve(app, keep_alive=0.05) as server:
        caller = await server.caller()
        caller.get()
        assert (await caller.answer()).status == 403
        caller.get(b"/", *HANDSHAKE)
        opened = await caller.head()
        assert (opened.status, opened[b"date"]) == (101, [DATE[1]])


@pytest.mark.parametrize("more", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
async def test_a_handshake_with_a_body_is_refused(serve: Serve, more: bytes) -> None:
    async with serve(app) as server:
        caller = await server.caller()
        caller.get(b"/", *HANDSHAKE, more)
        refused = await caller.answer()
        assert (refused.status, refused[b"connection"]) == (400, [b"close"])
        assert await caller.end() == b""


async def test_http_1_0_has_no_websockets(serve: Serve) -> None:
    async with serve(app) as server:
        caller = await server.caller()
        caller.say(b"\r\n".join([b"GET / HTTP/1.0", b"Host: a", *HANDSHAKE, b"", b""]))
        assert (await caller.answer()).status == 403
        assert await caller.end() == b""


async def test_a_websocket_cannot_begin_behind_a_request_that_is_not_answered(serve: Serve) -> None:
    async with serve(app) as server:
        caller = await server.caller()
        caller.say(
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
            + b"\r\n".join([b"GET / HTTP/1.1", b"Host: a", *HANDSHAKE, b"", b""])
        )
        assert (await caller.answer()).status == 403
        assert (await caller.answer()).status == 400
        assert await caller.end() == b""


async def test_limits_hold_for_handshakes(serve: Serve) -> None:
    async with serve(app, headers=5) as server:
        caller = await server.caller()
        caller.get(b"/", *HANDSHAKE, b"X-A: a")
        assert (await caller.answer()).status == 431


@pytest.mark.parametrize("more", [(b"X: " + b"a" * 9000,), (b"X: a",) * 150], ids=["large", "many"])
async def test_a_handshake_may_be_as_large_as_any_request(serve: Serve, more: tuple[bytes, ...]) -> None:
    async with serve(app) as server:
        caller = await server.caller()
        caller.get(b"/", *HANDSHAKE, *more)
        assert (await caller.head()).status == 101
