"""WebSockets through a gateway to a target, over real sockets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from http import HTTPStatus

import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from asgi_gateway.asgi import Receive, Scope, Send
from asgi_gateway.gateway import Gateway

Handler = Callable[[ServerConnection], Awaitable[None]]


@contextlib.asynccontextmanager
async def through(port: int, denials: bool = True) -> AsyncIterator[str]:
    """A gateway in front of a port; its address. `denials`: whether the server can refuse in HTTP."""
    gateway = Gateway.parse(
        {
            "routes": [{"name": "chat", "path": "/chat/*", "websocket": True, "upstream": "chat"}],
            "upstreams": {"chat": {"targets": [f"http://127.0.0.1:{port}"]}},
        }
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gateway(scope if denials else {**scope, "extensions": {}}, receive, send)

    config = uvicorn.Config(app, port=0, ws="websockets-sansio", log_config=None, server_header=False)
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        address = server.servers[0].sockets[0].getsockname()
        yield f"ws://127.0.0.1:{address[1]}/chat"
    finally:
        await server.shutdown()


@contextlib.asynccontextmanager
async def chat(handler: Handler) -> AsyncIterator[str]:
    """A gateway in front of a WebSocket server that refuses on /chat/no."""

    def refuse(socket: ServerConnection, request: Request) -> Response | None:
        return socket.respond(HTTPStatus.FORBIDDEN, "not you") if request.path == "/chat/no" else None

    def select(socket: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        return offered[-1] if offered else None

    listening = serve(handler, "127.0.0.1", 0, process_request=refuse, select_subprotocol=select)
    async with listening as server, through(next(iter(server.sockets)).getsockname()[1]) as address:
        yield address


async def echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


def to(address: str) -> connect:
    return connect(address, proxy=None)


async def closed(socket: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as end:
        await socket.recv()
    assert end.value.rcvd is not None
    return end.value.rcvd.code, end.value.rcvd.reason


async def test_messages_keep_their_kind_both_ways_and_may_be_empty() -> None:
    async with chat(echo) as address, to(f"{address}/a") as socket:
        for message in ("text", b"\x00\xff", "", b"", "x" * 200_000):
            await socket.send(message)
            assert await socket.recv() == message


async def test_the_target_sees_the_callers_path_host_and_fields_and_chooses_the_subprotocol() -> None:
    async def tell(socket: ServerConnection) -> None:
        assert socket.request is not None
        headers = socket.request.headers
        await socket.send(socket.request.path)
        await socket.send(" ".join([headers["host"], headers["x-forwarded-for"], *headers.get_all("x-a")]))

    async with chat(tell) as address:
        fields = [("x-a", "1"), ("x-a", "2")]
        async with connect(
            f"{address}/%C3%BC/b?q=%20",
            proxy=None,
            additional_headers=fields,
            subprotocols=[Subprotocol("one"), Subprotocol("two")],
        ) as socket:
            assert socket.subprotocol == "two"
            assert await socket.recv() == "/chat/%C3%BC/b?q=%20"
            assert await socket.recv() == f"{address.split('/')[2]} 127.0.0.1 1 2"


async def test_the_targets_close_reaches_the_caller() -> None:
    async def leave(socket: ServerConnection) -> None:
        await socket.close(4001, "enough")

    async with chat(leave) as address, to(f"{address}/a") as socket:
        assert await closed(socket) == (4001, "enough")


async def test_the_callers_close_reaches_the_target() -> None:
    seen: asyncio.Future[tuple[int | None, str | None]] = asyncio.get_running_loop().create_future()

    async def wait(socket: ServerConnection) -> None:
        await socket.wait_closed()
        seen.set_result((socket.close_code, socket.close_reason))

    async with chat(wait) as address:
        async with to(f"{address}/a") as socket:
            await socket.close(4002, "bye")
        assert await seen == (4002, "bye")


async def test_a_target_that_is_gone_in_the_middle_is_1011() -> None:
    async def vanish(socket: ServerConnection) -> None:
        await socket.recv()
        socket.transport.abort()

    async with chat(vanish) as address, to(f"{address}/a") as socket:
        await socket.send("now")
        assert (await closed(socket))[0] == 1011


async def test_a_refused_handshake_passes_with_its_body() -> None:
    async with chat(echo) as address:
        with pytest.raises(InvalidStatus) as refused:
            await to(f"{address}/no")
    response = refused.value.response
    assert (response.status_code, response.body) == (403, b"not you")


async def test_a_target_that_is_not_there_is_502() -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    async with through(port) as address:
        with pytest.raises(InvalidStatus) as refused:
            await to(f"{address}/a")
    assert refused.value.response.status_code == 502


async def test_where_the_server_knows_no_denial_a_refusal_is_its_403() -> None:
    def refuse(socket: ServerConnection, request: Request) -> Response:
        return socket.respond(HTTPStatus.UNAUTHORIZED, "not you")

    async with serve(echo, "127.0.0.1", 0, process_request=refuse) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with through(port, denials=False) as address:
            with pytest.raises(InvalidStatus) as refused:
                await to(f"{address}/a")
    assert refused.value.response.status_code == 403
