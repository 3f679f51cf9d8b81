"""The only place that builds a gateway for one test."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from ..asgi import ASGIApp, Message
from ..clock import Clock
from ..component import Component
from ..config import GatewayConfig, Route, Use
from ..config import Upstream as Declared
from ..endpoint import Endpoint
from ..gateway import Gateway
from ..plugins import Plugins
from .driving import Driven, Stream, WebSocket
from .messages import Body, Request, Response, Text
from .upstreams import InProcess, Upstream

Service = ASGIApp | Endpoint | str
"""An ASGI app, an endpoint, or the import path of an app."""
HOME = ("127.0.0.1", 1234)
Fields = Sequence[tuple[Text, Text]] | Mapping[Text, Text]


def pairs(fields: Fields) -> Sequence[tuple[Text, Text]]:
    return tuple(fields.items()) if isinstance(fields, Mapping) else fields


class Client:
    """Speaks plain ASGI with an app, as a server does."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def get(self, path: str, *, headers: Fields = (), client: tuple[str, int] = HOME) -> Response:
        return await self.request("GET", path, headers=headers, client=client)

    async def post(
        self, path: str, body: Body = b"", *, headers: Fields = (), client: tuple[str, int] = HOME
    ) -> Response:
        return await self.request("POST", path, body, headers=headers, client=client)

    async def request(
        self,
        method: str,
        path: str,
        body: Body = b"",
        *,
        headers: Fields = (),
        client: tuple[str, int] = HOME,
    ) -> Response:
        """The whole answer. Raises Aborted if it is cut in the middle."""
        return await self.ask(Request(method, path, pairs(headers), body, client))

    async def ask(self, request: Request) -> Response:
        """The same for a Request."""
        async with self.open(request) as exchange:
            await exchange.head()
            return Response(exchange.status, exchange.headers, await exchange.read())

    def stream(
        self,
        method: str,
        path: str,
        body: Body = b"",
        *,
        headers: Fields = (),
        client: tuple[str, int] = HOME,
    ) -> AbstractAsyncContextManager[Stream]:
        """The answer piece by piece: `head`, `chunk`, `leave`. The end of the block leaves, too."""
        return self.open(Request(method, path, pairs(headers), body, client))

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[Stream]:
        """`stream` for a Request."""
        driven = Driven(self._app, request.scope(), request.messages())
        try:
            yield Stream(driven)
        finally:
            await driven.close()

    @asynccontextmanager
    async def websocket(
        self, path: str, headers: Sequence[tuple[Text, Text]] = (), client: tuple[str, int] = HOME
    ) -> AsyncIterator[WebSocket]:
        """A WebSocket after its handshake, accepted or denied."""
        incoming: asyncio.Queue[Message] = asyncio.Queue()
        incoming.put_nowait({"type": "websocket.connect"})
        driven = Driven(
            self._app, Request("GET", path, headers, client=client).scope("websocket"), each(incoming)
        )
        socket = WebSocket(driven, incoming)
        try:
            await socket.open()
            yield socket
        finally:
            await driven.close()


async def each(queue: "asyncio.Queue[Message]") -> AsyncGenerator[Message, None]:
    while True:
        yield await queue.get()


@asynccontextmanager
async def gateway_around(
    *components: Component | Use,
    upstream: Service | None = None,
    upstreams: Mapping[str, Service] | None = None,
    plugins: Plugins | None = None,
    clock: Clock | None = None,
    dice: random.Random | None = None,
    **settings: object,
) -> AsyncIterator[Client]:
    """A client of a gateway that runs: one route `/*` to `upstream`; both are called `main`.

    Components stand where their stages belong. Other `upstreams` are there by name; `settings` are further
    fields of GatewayConfig, such as `consumers`. No installed plugin takes part unless `plugins` says so.
    """
    services = {"main": upstream or Upstream(), **(upstreams or {})}
    config = declare(components, services, settings)
    gateway = Gateway(config, plugins=plugins or Plugins(), clock=clock, dice=dice)
    async with gateway.lifespan():
        # What runs beside the requests begins with the next turn of the loop, which a server takes at once.
        await asyncio.sleep(0)
        yield Client(gateway)


def declare(
    components: Iterable[Component | Use], services: Mapping[str, Service], settings: Mapping[str, object]
) -> GatewayConfig:
    """The configuration with one route to the service `main`."""
    uses = [use if isinstance(use, Use) else Use(component=use) for use in components]
    on_route = tuple(use for use in uses if use.component.stage.on_routes)
    on_upstream = tuple(use for use in uses if not use.component.stage.on_routes)
    upstreams = {name: declare_upstream(service) for name, service in services.items()}
    upstreams["main"] = upstreams["main"].model_copy(update={"components": on_upstream})
    sockets = all("websocket" in use.component.serves for use in on_route)
    route = Route(name="main", path="/*", upstream="main", components=on_route, websocket=sockets)
    return GatewayConfig.model_validate({"upstreams": upstreams, "routes": (route,), **settings})


def declare_upstream(service: Service) -> Declared:
    if isinstance(service, str):
        return Declared(asgi=service)
    return Declared(endpoint=service if isinstance(service, Endpoint) else InProcess(app=service))
