"""How large the body of a request may be."""

from collections.abc import Awaitable, Callable
from functools import partial

from asgi_gateway.asgi import ASGIApp, Message, Receive, Scope, Send, header
from asgi_gateway.component import Build, Component, Refusal
from asgi_gateway.errors import Aborted
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.stage import Stage
from asgi_gateway.units import Size


class TooLarge(Exception):
    """Ends the call that was about to read what is too much."""


class BodyLimit(
    Component,
    name="body_limit",
    stage=Stage.GUARD,
    rank=20,
    serves=frozenset({"http", "websocket"}),
    refuses=True,
):
    """Refuses requests whose body is too large with 413, and counts it while it streams."""

    max_size: Size = 1024 * 1024
    """The largest body that is let through."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        most = self.max_size
        refuse, record = build.refuse(app), build.refuse(nothing)
        too_large = Refusal(413, "body_too_large", (), f"The body is larger than {most} bytes.")

        async def count(scope: Scope, receive: Receive, send: Send) -> None:
            counted = Counted(receive, send, most)
            try:
                await app(scope, counted.receive, counted.send)
            except Exception:
                if not counted.passed:
                    raise
            if not counted.passed:
                return
            exchange: Exchange = scope[EXCHANGE]
            if not exchange.status:
                await refuse(scope, receive, send, too_large)
            elif not exchange.complete:
                exchange.cause = too_large.reason
                raise Aborted("the body of the request is too large, and its answer had begun")

        def watch(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            tell = partial(record, scope, receive, send, too_large)
            return app(scope, Watched(receive, most, tell).receive, send)

        stream = watch if refuse.reporting else count

        def body_limit(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            exchange: Exchange = scope[EXCHANGE]
            if not exchange.has_body or scope["type"] != "http":
                return app(scope, receive, send)
            length = header(scope["headers"], b"content-length")
            if length is not None and int(length) > most:
                return refuse(scope, receive, send, too_large)
            # Not every server holds callers to the length that they announce.
            return stream(scope, receive, send)

        return body_limit


class Counted:
    """Counts a body as it is read. Past the limit whoever reads it or answers is stopped."""

    __slots__ = ("_left", "_receive", "_send", "passed")

    def __init__(self, receive: Receive, send: Send, most: int) -> None:
        self._receive = receive
        self._send = send
        self._left = most
        self.passed = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self.passed = True
            raise TooLarge
        return message

    def send(self, message: Message) -> Awaitable[None]:
        # An application that was stopped may want to tell the caller that it failed.
        if self.passed:
            raise TooLarge
        return self._send(message)


class Watched:
    """Counts a body as it is read, and tells once that it is too large."""

    __slots__ = ("_left", "_receive", "_tell")

    def __init__(self, receive: Receive, most: int, tell: Callable[[], Awaitable[None]]) -> None:
        self._receive = receive
        self._left = most
        self._tell = tell

    async def receive(self) -> Message:
        message = await self._receive()
        before = self._left
        self._left -= len(message.get("body", b""))
        if self._left < 0 <= before:
            await self._tell()
        return message


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Where a request goes on that is only recorded: it is on its way already."""
