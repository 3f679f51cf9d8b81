"""A gateway under its own protocol, between a raw caller and a raw upstream that records the bytes it got."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from asgi_gateway.asgi import ASGIApp
from asgi_gateway.gateway import Gateway
from asgi_gateway.server.protocol import protocol
from asgi_gateway.server.websocket import GatewayWebSocket
from tests.peers import peer

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Script = Callable[["Line"], Awaitable[None]]


@dataclass
class Line:
    """One connection at the upstream."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    upstream: "Raw"

    async def head(self) -> bytes:
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.upstream.heads.append(head)
        return head

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def gone(self) -> None:
        """Until the gateway has closed this connection."""
        while await self.reader.read(65536):
            pass
        self.upstream.closed.set()


@dataclass
class Raw:
    """An upstream that does what a test says, byte by byte."""

    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


async def answers(line: Line) -> None:
    """200 to everything, on connections that stay open; bodies are not looked at."""
    while True:
        await line.head()
        line.say(OK)


def answering(*parts: bytes) -> Script:
    """Answer the first request with these bytes, and close."""

    async def script(line: Line) -> None:
        await line.head()
        for part in parts:
            line.say(part)
            await line.writer.drain()

    return script


@asynccontextmanager
async def raw(script: Script = answers) -> AsyncIterator[Raw]:
    upstream = Raw()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Awaitable[None]:
        upstream.connections += 1
        return script(Line(reader, writer, upstream))

    async with peer(serve) as upstream.port:
        yield upstream


@dataclass
class Answer:
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]


@dataclass
class Caller:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, path: str = "/", *fields: str, method: str = "GET", body: bytes = b"") -> Answer:
        """One request, and its whole answer."""
        self.say(path, *fields, method=method, body=body)
        return await self.answer(method)

    def say(self, path: str = "/", *fields: str, method: str = "GET", body: bytes = b"") -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: gw.test", *fields]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    async def head(self) -> Answer:
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
        pairs = [line.partition(b": ") for line in lines]
        return Answer(int(first.split()[1]), [(name.lower(), value) for name, _, value in pairs])

    async def answer(self, method: str = "GET") -> Answer:
        answer = await self.head()
        if method == "HEAD" or answer.status in (100, 204, 304):
            return answer
        if answer.all(b"transfer-encoding"):
            while size := int(await self.reader.readline(), 16):
                answer.body += await self.reader.readexactly(size)
                await self.reader.readline()
            await self.reader.readline()
        elif lengths := answer.all(b"content-length"):
            answer.body = await self.reader.readexactly(int(lengths[0]))
        else:
            answer.body = await self.reader.read()
        return answer

    def leave(self) -> None:
        self.writer.close()


@dataclass
class Serving:
    gateway: Gateway
    port: int
    state: ServerState
    callers: list[Caller] = field(default_factory=list)

    async def caller(self) -> Caller:
        caller = Caller(*await asyncio.open_connection("127.0.0.1", self.port))
        self.callers.append(caller)
        return caller


@asynccontextmanager
async def served(
    gateway: Gateway, app: ASGIApp | None = None, *, seconds: float = 20
) -> AsyncIterator[Serving]:
    """Serve a gateway, or the app that it is mounted in."""
    config = Config(app or gateway, lifespan="off", ws=GatewayWebSocket, interface="asgi3", log_config=None)
    config.proxy_headers = False
    config.ws_max_size = gateway.config.server.limits.message_bytes
    config.ws_ping_interval = gateway.config.server.ping
    state, kind, loop = ServerState(), protocol(gateway.config.server), asyncio.get_running_loop()
    state.default_headers = [(b"date", b"Tue, 01 Sep 2026 10:00:00 GMT")]
    server = await loop.create_server(
        lambda: kind(config=config, server_state=state, app_state={}, _loop=loop), "127.0.0.1", 0
    )
    async with server, gateway.lifespan(), asyncio.timeout(seconds):
        serving = Serving(gateway, server.sockets[0].getsockname()[1], state)
        try:
            yield serving
        finally:
            for caller in serving.callers:
                caller.leave()
        while state.connections or state.tasks:
            await asyncio.sleep(0.001)


Front = Callable[..., Awaitable[Serving]]
Behind = Callable[..., Awaitable[Raw]]


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def upstream(stack: AsyncExitStack) -> Behind:
    async def upstream(script: Script = answers) -> Raw:
        return await stack.enter_async_context(raw(script))

    return upstream


@pytest.fixture
def front(stack: AsyncExitStack) -> Front:
    """`await front(upstream, timeout={...})`: everything goes to it; `route=` and `config=` say more."""

    async def front(
        *upstreams: Raw,
        route: dict[str, Any] | None = None,
        config: dict[str, Any] | None = None,
        **options: Any,
    ) -> Serving:
        document = {
            "upstreams": {"up": {"targets": [raw.url for raw in upstreams], **options}},
            "routes": [{"name": "all", "path": "/*", "upstream": "up", **(route or {})}],
            **(config or {}),
        }
        return await stack.enter_async_context(served(Gateway.parse(document)))

    return front
