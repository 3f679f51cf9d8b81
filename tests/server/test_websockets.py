"""WebSockets through gateways in processes of their own: at a signal, and under other people's servers."""

import asyncio
import contextlib
import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from tests.processes import gateway, running

from .test_app import READY, SERVERS, command, port

__all__ = ["port"]  # a fixture

Closes = list[tuple[int | None, str | None]]


class Upstream:
    """Echoes; refuses on /no with 418; closes with 4001 when it is told to."""

    def __init__(self) -> None:
        self.closed: Closes = []

    async def __call__(self, socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in socket:
                if message == "close":
                    await socket.close(4001, "enough")
                else:
                    await socket.send(message)
        self.closed.append((socket.close_code, socket.close_reason))

    def listen(self) -> serve:
        def refuse(socket: ServerConnection, request: Request) -> Response | None:
            return socket.respond(418, "tea") if request.path == "/no" else None  # type: ignore[arg-type]

        def select(socket: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
            return offered[-1] if offered else None

        return serve(self, "127.0.0.1", 0, process_request=refuse, select_subprotocol=select)


def document(port: int) -> dict[str, Any]:
    return {
        "upstreams": {"up": {"targets": [f"http://127.0.0.1:{port}"]}},
        "routes": [{"name": "all", "path": "/*", "websocket": True, "upstream": "up"}],
    }


async def test_sigterm_closes_with_1001_and_exit_code_0(tmp_path: Path) -> None:
    upstream = Upstream()
    async with upstream.listen() as server:
        target = next(iter(server.sockets)).getsockname()[1]
        async with gateway(tmp_path, document(target)) as one:
            async with connect(one.url.replace("http", "ws"), proxy=None) as socket:
                await socket.send("a")
                assert await socket.recv() == "a"
                one.signal(signal.SIGTERM)
                with pytest.raises(ConnectionClosed) as end:
                    await socket.recv()
            assert await one.ended() == 0
            assert "Traceback" not in str(one)
    assert end.value.rcvd is not None
    assert (end.value.rcvd.code, end.value.rcvd.reason) == (1001, "the server is going away")
    assert upstream.closed == [(1001, "the server is going away")]


@pytest.mark.parametrize("server", SERVERS)
async def test_under(server: str, tmp_path: Path, port: int) -> None:
    upstream, file = Upstream(), tmp_path / "gateway.yaml"
    async with upstream.listen() as listening:
        target = next(iter(listening.sockets)).getsockname()[1]
        file.write_text(json.dumps(document(target)))
        env = {"ASGI_GATEWAY_CONFIG": str(file)}
        async with running(*command(server, port, file), env=env) as one:
            await one.says(READY[server])
            address = f"ws://127.0.0.1:{port}"
            await listening_on(port)
            await talk(address)
            while not upstream.closed:
                await asyncio.sleep(0.01)
            # Hypercorn tells every close of a caller as 1006.
            assert upstream.closed[0][0] == (1011 if server == "hypercorn" else 4002)
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"{address}/no", proxy=None)
            assert (refused.value.response.status_code, refused.value.response.body) == (418, b"tea")
            assert "Traceback" not in str(one)


async def listening_on(port: int) -> None:
    """Some servers say that they run a moment before they listen."""
    while True:
        with contextlib.suppress(ConnectionError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(0.02)


async def talk(address: str) -> None:
    async with connect(
        address, proxy=None, subprotocols=[Subprotocol("other"), Subprotocol("chat")]
    ) as socket:
        assert socket.subprotocol == "chat"
        for message in ("text", b"\x00", "", "x" * 100_000):
            await socket.send(message)
            assert await socket.recv() == message
        await socket.close(4002, "bye")
    async with connect(address, proxy=None) as socket:
        await socket.send("close")
        with pytest.raises(ConnectionClosed) as end:
            await socket.recv()
    assert end.value.rcvd is not None
    assert (end.value.rcvd.code, end.value.rcvd.reason) == (4001, "enough")
