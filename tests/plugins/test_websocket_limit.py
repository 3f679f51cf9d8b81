import asyncio
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from asgi_gateway.config import Use
from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from asgi_gateway.testing import gateway_around
from asgi_gateway_plugins.websocket_limit import Meter, WebsocketLimit
from tests.plugins.kit import Hand, document
from tests.processes import gateway


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Says again what it hears."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


def test_a_meter_admits_a_burst_and_then_its_rate() -> None:
    clock = Hand()
    meter = Meter(10, 1.0, lambda: clock.seconds)
    assert [meter.spend(1) for _ in range(10)] == [0.0] * 10
    assert meter.spend(1) == pytest.approx(0.1)
    clock.seconds += 60
    assert meter.spend(10) == 0


async def test_what_is_too_much_waits() -> None:
    limit = WebsocketLimit.model_validate({"messages": 20, "burst": "50ms"})
    async with gateway_around(limit, upstream=echo) as client, client.websocket("/") as socket:
        began = monotonic()
        for number in range(5):
            await socket.send(str(number))
        assert [await socket.receive() for _ in range(5)] == list("01234")
        assert 0.19 < monotonic() - began < 2


@pytest.mark.parametrize("options", [{"messages": 2}, {"bytes": "10B"}])
async def test_what_is_too_much_may_end_the_connection(options: dict[str, Any]) -> None:
    limit = WebsocketLimit.model_validate({**options, "excess": "close"})
    async with gateway_around(limit, upstream=echo) as client, client.websocket("/") as socket:
        for _ in range(3):
            await socket.send(b"four")
        assert [await socket.receive() for _ in range(3)] == [b"four", b"four", b""]
        assert socket.close_code == 1008


async def test_a_message_that_would_wait_for_too_long_ends_the_connection() -> None:
    limit = WebsocketLimit.model_validate({"bytes": "10B"})
    async with gateway_around(limit, upstream=echo) as client, client.websocket("/") as socket:
        await socket.send("x" * 1000)
        assert await socket.receive() == b""
        assert socket.close_code == 1008


async def test_reporting_lets_pass_and_each_connection_counts_for_itself() -> None:
    limit = WebsocketLimit(messages=1, excess="close")
    reported = Use(component=limit, mode="report")
    async with gateway_around(reported, upstream=echo) as client, client.websocket("/") as socket:
        for _ in range(5):
            await socket.send("a")
        assert [await socket.receive() for _ in range(5)] == ["a"] * 5
    async with gateway_around(limit, upstream=echo) as client:
        for _ in range(3):
            async with client.websocket("/") as socket:
                await socket.send("a")
                assert await socket.receive() == "a"


async def test_over_real_sockets_both_sides_learn_of_the_end(tmp_path: Path) -> None:
    closed: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def upstream(socket: ServerConnection) -> None:
        try:
            while True:
                await socket.send(await socket.recv())
        except ConnectionClosed as end:
            closed.set_result(end.rcvd.code if end.rcvd is not None else 0)

    limit = {"websocket_limit": {"messages": 3, "excess": "close"}}
    async with serve(upstream, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        declared = {
            "upstreams": {"chat": {"targets": [f"http://127.0.0.1:{port}"]}},
            "routes": [
                {"name": "a", "path": "/*", "upstream": "chat", "websocket": True, "components": [limit]}
            ],
        }
        async with gateway(tmp_path, declared) as one:
            async with connect(one.url.replace("http", "ws") + "/chat", proxy=None) as socket:
                for number in range(4):
                    await socket.send(str(number))
                await asyncio.wait_for(socket.wait_closed(), 5)
                assert socket.close_code == 1008
            assert await asyncio.wait_for(closed, 5) == 1008


def test_a_limit_of_nothing_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="write messages: 10"):
        Gateway.parse(document({"websocket_limit": {}}))
