"""The only place that runs an ASGI app of this process as a target."""

import asyncio
import logging
from typing import Any

from .asgi import ASGIApp, Message, Receive, Scope, Send, is_stream
from .call import CALL, Call
from .clock import Clock
from .errors import CallerLeft, Discarded, UpstreamError
from .exchange import EXCHANGE, HOST
from .importing import find

FOREVER = float("inf")
NOT_ITS_OWN = frozenset(
    {
        EXCHANGE,
        CALL,
        HOST,
        "app",
        "endpoint",
        "path_params",
        "route",
        "router",
        "starlette.exception_handlers",
    }
)
"""What a scope holds of the gateway, and of an application that the gateway is mounted in."""

logger = logging.getLogger("asgi_gateway")


class Local:
    """An ASGI app found by its import path, with its lifespan."""

    def __init__(self, path: str, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        self.app: ASGIApp = find(path, "an ASGI app")
        self._started: asyncio.Event | None = None
        self.state: dict[str, Any] = {}

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as a server would: an app that raises before its head has failed, and is a 500."""
        inner = {key: value for key, value in scope.items() if key not in NOT_ITS_OWN}
        inner["state"] = self.state.copy()
        if self._started is not None:
            await self._started.wait()
        call: Call = scope[CALL]
        call.phase, call.owing = "head", True
        progress = Progress(send, call, self._clock)
        if scope["type"] == "http" and scope[EXCHANGE].has_body:
            receive = listening(receive, call)
        try:
            await self.app(inner, receive, progress.send)
        except (UpstreamError, asyncio.CancelledError):
            raise
        except Exception as error:
            if scope["type"] == "websocket" and says_left(error, progress):
                raise CallerLeft from error
            if progress.discarding is error:
                raise
            if isinstance(progress.discarding, Discarded):
                # An app may wrap what comes out of `send`, in an exception group for example.
                raise progress.discarding from None
            logger.exception("the app %s raised", self.path)
            raise UpstreamError(
                "raised", "head", f"{self.path}: {type(error).__name__}", sent=True
            ) from error
        else:
            progress.end(self.path)
        finally:
            # Its traceback knows `progress`: nobody should have to collect the ring.
            progress.discarding = None

    async def run(self) -> None:
        """The app's lifespan, for as long as this coroutine runs. An app without one is served, too."""
        started, stop = asyncio.Event(), asyncio.Event()
        self._started = started

        async def receive() -> Message:
            if not started.is_set():
                return {"type": "lifespan.startup"}
            await stop.wait()
            return {"type": "lifespan.shutdown"}

        async def send(message: Message) -> None:
            if message["type"].endswith(".failed"):
                logger.error("the lifespan of %s failed: %s", self.path, message.get("message", ""))
            started.set()

        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        task = asyncio.create_task(self.lifespan(scope, receive, send, started))
        try:
            await stop.wait()
        finally:
            stop.set()
            self._started = None
            await task

    async def lifespan(self, scope: Scope, receive: Receive, send: Send, started: asyncio.Event) -> None:
        try:
            await self.app(scope, receive, send)
        except Exception:
            # Raising at startup is how an app says that it knows no lifespan.
            if started.is_set():
                logger.exception("the lifespan of %s failed", self.path)
        finally:
            started.set()


def listening(receive: Receive, call: Call) -> Receive:
    """A `receive` of a request with a body: while more of that is to come, it is not the app that is late."""
    more = True

    async def listen() -> Message:
        nonlocal more
        if not more:
            return await receive()
        call.owing = False
        message = await receive()
        call.owing = True
        more = message.get("more_body", False)
        return message

    return listen


class Progress:
    """How far the answer of an app came. What a component raises out of `send` is passed on, not taken for
    the app's.
    """

    __slots__ = ("_call", "_clock", "_send", "complete", "discarding")

    def __init__(self, send: Send, call: Call, clock: Clock) -> None:
        self._send = send
        self._call = call
        self._clock = clock
        self.complete = False
        self.discarding: BaseException | None = None

    def end(self, name: str) -> None:
        """The app has returned. UpstreamError if it has not answered, also where that is no fault of its."""
        if not self.complete:
            if isinstance(self.discarding, Discarded):
                raise self.discarding
            raise UpstreamError("incomplete", "head", f"{name} returned before it had answered", sent=True)

    async def send(self, message: Message) -> None:
        kind, call = message["type"], self._call
        if kind == "websocket.accept" or (
            kind == "http.response.start" and is_stream(message.get("headers", ()))
        ):
            call.streaming = True
        if kind == "http.response.body" and type(message.get("body", b"")) is not bytes:
            # Starlette lets its apps say memoryview, and not every component can.
            message = {**message, "body": bytes(message["body"])}
        # While the caller takes it, it is not the app that is silent.
        call.silence, call.owing = FOREVER, False
        try:
            await self._send(message)
        except Exception as error:
            self.discarding = error
            raise
        call.owing = True
        if kind in ("http.response.body", "websocket.http.response.body"):
            self.complete = not message.get("more_body", False)
        elif kind.startswith("websocket."):
            self.complete = True
        if call.streaming and kind.startswith("http."):
            call.silence = self._clock.monotonic() + call.timeouts.stream


def says_left(error: Exception, progress: Progress) -> bool:
    """Whether an app only passes on that its caller left: what `send` raised, or Starlette's word for it."""
    from starlette.websockets import WebSocketDisconnect

    if isinstance(error, WebSocketDisconnect):
        return True
    return isinstance(error, OSError) and progress.discarding is error
