"""A gateway in front of upstreams that remember what came to them."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from asgi_gateway.asgi import ASGIApp, Header, Message, Receive, Scope, Send
from asgi_gateway.clock import Clock
from asgi_gateway.component import Build
from asgi_gateway.endpoint import Endpoint
from asgi_gateway.gateway import Gateway
from asgi_gateway.hookspecs import hookimpl

CALLER = "203.0.113.7"


class Hand(Clock):
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        super().__init__(lambda: self.seconds, lambda: self.seconds + 1_700_000_000)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


class Upstreams:
    """A plugin with one kind of endpoint: it answers with its label, and remembers the scopes."""

    def __init__(self) -> None:
        self.seen: list[Scope] = []
        self.answers: list[Header] = []
        self.body = b""
        self.failure: Exception | None = None
        self.hangs = False
        self.reached = asyncio.Event()

    @property
    def labels(self) -> list[str]:
        return [scope["label"] for scope in self.seen]

    def headers(self, name: str) -> list[str]:
        """The values that the last request had in a field."""
        return [value.decode() for field, value in self.seen[-1]["headers"] if field == name.encode()]

    @hookimpl
    def gateway_endpoints(self) -> Iterable[type[Endpoint]]:
        upstreams = self

        class Recording(Endpoint, name="recording"):
            label: str

            def open(self, build: Build) -> ASGIApp:
                async def recording(scope: Scope, receive: Receive, send: Send) -> None:
                    await upstreams.answer({**scope, "label": self.label}, receive, send)

                return recording

        return [Recording]

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(scope)
        self.reached.set()
        if self.hangs:
            await asyncio.Event().wait()
        if self.failure is not None:
            raise self.failure
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 1000})
            return
        body = self.body or scope["label"].encode()
        headers = [(b"content-length", b"%d" % len(body)), *self.answers]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def document(*components: Any, path: str = "/*", **more: Any) -> dict[str, Any]:
    """A file with one route, `main`, and two upstreams, `main` and `next`."""
    route = {"name": "main", "path": path, "upstream": "main", "components": list(components)}
    route |= more.pop("route", {})
    upstreams = {name: {"endpoint": {"recording": {"label": name}}} for name in ("main", "next")}
    return {"upstreams": upstreams, "routes": [route], **more}


def client(gateway: Gateway, address: str = CALLER) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(gateway, client=(address, 50_000))
    return httpx.AsyncClient(transport=transport, base_url="http://gateway.test")


@asynccontextmanager
async def serving(
    upstreams: Upstreams, declared: dict[str, Any], clock: Clock | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway that runs."""
    gateway = Gateway.parse(declared, plugins=[upstreams], clock=clock)
    async with gateway.lifespan(), client(gateway) as http:
        # What runs beside the requests begins with the next turn of the loop, which a server takes at once.
        await asyncio.sleep(0)
        yield http


async def handshake(gateway: Gateway, path: str = "/", headers: Iterable[Header] = ()) -> list[Message]:
    """What a gateway answers to a WebSocket handshake."""
    sent: list[Message] = []
    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"gateway.test"), *headers],
        "client": (CALLER, 50_000),
        "server": ("gateway.test", 80),
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
    }

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await gateway(scope, receive, send)
    return sent
