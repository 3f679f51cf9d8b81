"""The only place that builds a gateway for one test."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

from ..asgi import ASGIApp, Message
from ..clock import Clock
from ..component import Component
from ..config import GatewayConfig, Route, Use
from ..config import Upstream as Declared
from ..endpoint import Endpoint
from ..gateway import Gateway
from ..plugins import Plugins
from .driving import Body, Driven, Exchange, Request, Response, Text, WebSocket
from .upstreams import InProcess, Upstream

Service = ASGIApp | Endpoint | str
"""An ASGI app, an endpoint, or the import path of an app."""
HOME = ("127.0.0.1", 1234)


class Client:
    """Speaks plain ASGI with an app, as a server does."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def get(
        self, path: str, headers: Iterable[tuple[Text, Text]] = (), client: tuple[str, int] = HOME
    ) -> Response:
        return await self.request("GET", path, headers, client=client)

    async def post(
        self,
        path: str,
        headers: Iterable[tuple[Text, Text]] = (),
        body: Body = b"",
        client: tuple[str, int] = HOME,
    ) -> Response:
        return await self.request("POST", path, headers, body, client)

    async def request(
        self,
        method: str,
        path: str,
        headers: Iterable[tuple[Text, Text]] = (),
        body: Body = b"",
        client: tuple[str, int] = HOME,
    ) -> Response:
        """The whole answer. Raises Aborted if it is cut in the middle."""
        return await self.ask(Request(method, path, headers, body, client))

    async def ask(self, request: Request) -> Response:
        """The same for a Request."""
        async with self._exchange(request) as exchange:
            return Response(exchange.status, exchange.headers, await exchange.read())

    def stream(
        self,
        method: str,
        path: str,
        headers: Iterable[tuple[Text, Text]] = (),
        body: Body = b"",
        client: tuple[str, int] = HOME,
    ) -> "asynccontextmanager_of_exchange":
        """The answer piece by piece, from its head on. Leaving the block early is leaving the gateway."""
        return self._exchange(Request(method, path, headers, body, client))
