"""The gateway's protocol around a plain ASGI app, on both event loops, spoken to in raw bytes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

import pytest
import uvloop
from uvicorn import Config
from uvicorn.server import ServerState

from asgi_gateway.asgi import ASGIApp
from asgi_gateway.config import Limits, Server
from asgi_gateway.server.protocol import GatewayProtocol, protocol
from asgi_gateway.server.websocket import GatewayWebSocket

DATE = (b"date", b"Tue, 01 Sep 2026 10:00:00 GMT")


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@dataclass
class Answer:
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""

    def __getitem__(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]


@dataclass
class Caller:
    """A client that says exactly what a test says."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    def get(self, path: bytes = b"/", *fields: bytes) -> None:
        self.say(b"\r\n".join([b"GET " + path + b" HTTP/1.1", b"Host: a", *fields, b"", b""]))

    async def line(self) -> bytes:
        return (await self.reader.readuntil(b"\r\n"))[:-2]

    async def head(self) -> Answer:
        status = int((await self.line()).split()[1])
        fields = []
        while line := await self.line():
            name, _, value = line.partition(b": ")
            fields.append((name, value))
        return Answer(status, fields)

    async def answer(self, bodyless: bool = False) -> Answer:
        """The next whole answer, read by its own framing."""
        answer = await self.head()
        if bodyless or answer.status in (204, 304):
            return answer
        if answer[b"transfer-encoding"]:
            while size := int(await self.line(), 16):
                answer.body += await self.reader.readexactly(size)
                await self.line()
            await self.line()
        elif answer[b"content-length"]:
            answer.body = await self.reader.readexactly(int(answer[b"content-length"][0]))
        else:
            answer.body = await self.reader.read()
        return answer

    async def end(self) -> bytes:
        """Everything until the connection ends cleanly; ConnectionResetError if it does not."""
        return await self.reader.read()

    def leave(self) -> None:
        self.writer.close()


@dataclass
class Serving:
    address: tuple[str, int]
    state: ServerState
    callers: list[Caller] = field(default_factory=list)

    async def caller(self) -> Caller:
        caller = Caller(*await asyncio.open_connection(*self.address))
        self.callers.append(caller)
        return caller


Serve = Callable[..., "contextlib.AbstractAsyncContextManager[Serving]"]


@pytest.fixture
def serve() -> Serve:
    @contextlib.asynccontextmanager
    async def serving(
        app: ASGIApp,
        *,
        keep_alive: float = 60,
        most: int = 10_000,
        half_close: bool = False,
        **limits: float,
    ) -> AsyncIterator[Serving]:
        config = Config(app, lifespan="off", ws=GatewayWebSocket, interface="asgi3", log_config=None)
        config.proxy_headers = False
        state = ServerState()
        state.default_headers = [DATE]
        bounds = Limits.model_construct(**limits)  # type: ignore[arg-type]
        server = Server.model_construct(limits=bounds, keep_alive=keep_alive, half_close=half_close)
        kind = protocol(server, most)
        loop = asyncio.get_running_loop()

        def connect() -> GatewayProtocol:
            return kind(config=config, server_state=state, app_state={}, _loop=loop)

        listening = await loop.create_server(connect, "127.0.0.1", 0)
        async with listening, asyncio.timeout(20):
            serving = Serving(listening.sockets[0].getsockname()[:2], state)
            try:
                yield serving
            finally:
                for caller in serving.callers:
                    caller.leave()
            while state.connections or state.tasks:
                await asyncio.sleep(0.001)

    return serving
