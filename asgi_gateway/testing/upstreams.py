"""The only place that plays a service behind the gateway: remembers what came, and fails on demand."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import PlainSerializer

from ..asgi import ASGIApp, Header, Headers, Receive, Scope, Send
from ..call import Call
from ..component import Build
from ..endpoint import Endpoint
from ..errors import Discarded, UpstreamError
from ..local import Progress

Moment = Literal["never", "head", "chunk"]

logger = logging.getLogger("asgi_gateway")


class InProcess(Endpoint, name="test_app"):
    """An ASGI app object as an upstream. What it raises before its head is a failing upstream, a 500."""

    app: Annotated[ASGIApp, PlainSerializer(repr)]
    """The app that answers; its scopes hold the exchange and the call."""

    def open(self, build: Build) -> ASGIApp:
        app, clock = self.app, build.clock

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            progress = Progress(send, Call.of(scope), clock)
            try:
                await app(scope, receive, progress.send)
            except UpstreamError:
                raise
            except Exception as error:
                if progress.discarding is error:
                    raise
                if isinstance(progress.discarding, Discarded):
                    raise progress.discarding from None
                logger.info("%r raised", app, exc_info=error)
                raise UpstreamError("raised", "head", type(error).__name__, sent=True) from error
            else:
                progress.end(repr(app))
            finally:
                progress.discarding = None

        return serve


@dataclass(eq=False)
class Seen:
    """One request as it came to an upstream."""

    scope: Scope
    """With the exchange, see `Exchange.of`."""
    body: bytes = b""
    """What was read of it so far."""
    left: bool = False
    """Whether it was cancelled: the caller left, or a deadline passed."""

    @property
    def method(self) -> str:
        return str(self.scope.get("method", "GET"))

    @property
    def path(self) -> str:
        return str(self.scope["path"])

    @property
    def headers(self) -> list[Header]:
        return list(self.scope["headers"])

    def values(self, name: str) -> list[str]:
        """All values of a header."""
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.scope["headers"] if key == wanted]


class Upstream:
    """An ASGI app that remembers each request; how it answers may be changed between two requests.

    A WebSocket is accepted, and gets back what it sends.
    """

    def __init__(
        self,
        *chunks: bytes,
        status: int = 200,
        headers: Headers = (),
        waits: Moment = "never",
        fails: Moment = "never",
    ) -> None:
        self.chunks = chunks or (b"ok",)
        """The body, one message for each."""
        self.status = status
        self.headers = headers
        self.waits = waits
        """Waits for `proceed`: before the `head`, or before each `chunk` but the first."""
        self.fails = fails
        """Raises before the `head`, or in the middle: after the first `chunk`."""
        self.seen: list[Seen] = []
        """Every request, oldest first."""
        self.reached = asyncio.Event()
        """Set by the first request."""
        self._permits = asyncio.Semaphore(0)

    def proceed(self, times: int = 1) -> None:
        """Let it go past so many of its waits, also of those to come."""
        for _ in range(times):
            self._permits.release()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        seen = Seen(scope)
        self.seen.append(seen)
        self.reached.set()
        try:
            if scope["type"] == "websocket":
                await echo(receive, send)
                return
            await read(seen, receive)
            await self._answer(send)
        except asyncio.CancelledError:
            seen.left = True
            raise

    async def _answer(self, send: Send) -> None:
        if self.waits == "head":
            await self._permits.acquire()
        if self.fails == "head":
            raise RuntimeError("this upstream fails on demand")
        await send({"type": "http.response.start", "status": self.status, "headers": list(self.headers)})
        for index, chunk in enumerate(self.chunks):
            if index and self.waits == "chunk":
                await self._permits.acquire()
            more = index + 1 < len(self.chunks) or self.fails == "chunk"
            await send({"type": "http.response.body", "body": chunk, "more_body": more})
            if self.fails == "chunk":
                raise RuntimeError("this upstream breaks in the middle on demand")


async def read(seen: Seen, receive: Receive) -> None:
    more = True
    while more:
        message = await receive()
        seen.body += message.get("body", b"")
        more = message.get("more_body", False)


async def echo(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
