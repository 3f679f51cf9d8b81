"""The only place that runs one request: its task, its `receive` and its `send`."""

import asyncio
import logging
from typing import TYPE_CHECKING

from ..asgi import ASGIApp, Headers, Message, Scope
from ..errors import Aborted
from .lines import farewell, head, trailers

if TYPE_CHECKING:
    from .protocol import GatewayProtocol

HIGH_WATER = 65536
"""Bytes of a request's body that wait for the app before reading pauses."""
UNWANTED = 16 * 1024 * 1024
"""Bytes of a body that are thrown away after an early answer, before the connection is given up."""
BODYLESS = frozenset({204, 304})

logger = logging.getLogger("asgi_gateway")


class Cycle:
    """One request and its answer: the ASGI `receive` and `send`."""

    __slots__ = (
        "_body",
        "_bodyless",
        "_chunked",
        "_event",
        "_left",
        "_ready",
        "_trailers",
        "_unwanted",
        "complete",
        "disconnected",
        "expects",
        "got",
        "keep_alive",
        "more_body",
        "protocol",
        "scope",
        "started",
        "task",
    )

    def __init__(self, protocol: "GatewayProtocol", scope: Scope, keep_alive: bool, expects: bool) -> None:
        self.protocol = protocol
        self.scope = scope
        self.keep_alive = keep_alive
        """Whether the connection goes on after the answer."""
        self.expects = expects
        """Whether the caller waits for `100 Continue` before it sends its body."""
        self.task: asyncio.Task[None] | None = None
        self.disconnected = False
        """Whether the caller left, or the connection is taken from this request for another reason."""
        self.more_body = True
        self.got = 0
        """Bytes of the body that came."""
        self.started = False
        self.complete = False
        self._body: bytes | bytearray = b""
        self._unwanted = 0
        self._ready = False
        self._event: asyncio.Event | None = None
        self._bodyless = False
        self._chunked = False
        self._trailers = False
        """Whether trailers come after the body."""
        self._left = 0

    async def run(self, app: ASGIApp) -> None:
        try:
            await app(self.scope, self.receive, self.send)
        except Aborted:
            self.protocol.cut(self)
        except asyncio.CancelledError:
            # From outside: the answer is not wanted any more. Raised by the app itself: a fault of the app.
            if self.task is None or self.task.cancelling():
                self.protocol.cut(self)
            else:
                self.fail("the application was cancelled by itself", with_traceback=True)
        # An app that wants to exit ends its request, not the server.
        except BaseException:
            self.fail("the application failed", with_traceback=True)
        else:
            if not self.complete:
                self.fail("the application returned before its answer was complete")
        finally:
            self.protocol.tasks.discard(self.task)
            self.task = None

    def fail(self, what: str, with_traceback: bool = False) -> None:
        """The answer will not come: say so if nothing was sent yet, else cut."""
        if with_traceback or not self.disconnected:
            path = self.scope["raw_path"].decode("ascii")
            logger.error("%s %s: %s", self.scope["method"], path, what, exc_info=with_traceback)
        if self.started:
            self.protocol.cut(self)
        elif not self.disconnected:
            self.started = True
            self._end_connection()
            date = self.protocol.server_state.default_headers
            self.protocol.write(farewell(500, "internal_error", "the request could not be processed", date))
            self._finish()

    def feed(self, body: bytes) -> None:
        """The next piece of the request's body arrived."""
        self.got += len(body)
        if self.complete:
            # It was answered early: a little more is read, so that the connection can go on.
            self._unwanted += len(body)
            if self._unwanted > UNWANTED:
                self.protocol.close()
            return
        if not self._body:
            self._body = body
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += body
        if len(self._body) > HIGH_WATER:
            self.protocol.flow.pause_reading()
        self.wake()

    def wake(self) -> None:
        """Something happened that `receive` waits for."""
        self._ready = True
        if self._event is not None:
            self._event.set()

    async def receive(self) -> Message:
        if self.expects and self.more_body and not self.disconnected:
            self.expects = False
            self.protocol.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.protocol.read_on()
        while not self._ready:
            if self._event is None:
                self._event = asyncio.Event()
            await self._event.wait()
        if self.disconnected or self.complete:
            return {"type": "http.disconnect"}
        self._ready = False
        if self._event is not None:
            self._event.clear()
        body, self._body = self._body, b""
        return {"type": "http.request", "body": bytes(body), "more_body": self.more_body}

    async def send(self, message: Message) -> None:
        if self.protocol.flow.write_paused and not self.disconnected:
            await self.protocol.flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if kind == "http.response.body" and self.started and not self.complete:
            self._continue(message.get("body", b""), message.get("more_body", False))
        elif kind == "http.response.start" and not self.started:
            self._start(message["status"], message.get("headers", ()))
            self._trailers = message.get("trailers", False) and self._chunked
        elif kind == "http.response.trailers" and self.started:
            self._end(message.get("headers", ()))
        else:
            state = "complete" if self.complete else "begun" if self.started else "not begun"
            raise RuntimeError(f"{kind!r} was sent while the answer was {state}")

    def _start(self, status: int, headers: Headers) -> None:
        lines, length, close = head(status, headers, self.protocol.server_state.default_headers)
        protocol = self.protocol
        if close or (self.expects and self.more_body) or (protocol.draining and not protocol.waiting):
            # Without `100 Continue` nobody knows whether the body still comes: RFC 9110 10.1.1.
            self._end_connection()
        self.started = True
        protocol.hold(lines + self._frame(status, length))

    def _end_connection(self) -> None:
        self.protocol.surprising = self.keep_alive
        self.keep_alive = False

    def _frame(self, status: int, length: int | None) -> bytes:
        """What else says where the body ends (RFC 9112 6.3), and the end of the head."""
        self._bodyless = status in BODYLESS or self.scope["method"] == "HEAD"
        frame = b""
        if length is not None:
            self._left = length
        elif not self._bodyless and self.scope["http_version"] == "1.0":
            self._left = -1
        elif not self._bodyless:
            self._chunked = True
            frame = b"transfer-encoding: chunked\r\n"
        return frame + (b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")

    def _continue(self, body: bytes, more: bool) -> None:
        """Write a piece of the body."""
        if type(body) is not bytes:
            # Starlette lets its apps say memoryview.
            body = bytes(body)
        if self._bodyless:
            self.protocol.write(b"")
        elif self._chunked:
            piece = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                piece += b"0\r\n" if self._trailers else b"0\r\n\r\n"
            self.protocol.write(piece)
        elif body or self._left > 0:
            self._count(len(body), more)
            self.protocol.write(body)
        if not more and not self._trailers:
            self._finish()

    def _end(self, headers: Headers) -> None:
        """Write the trailers; where they cannot stand, as behind a body of known length, they are dropped."""
        if self._trailers:
            self._trailers = False
            self.protocol.write(trailers(headers))
            self._finish()

    def _count(self, size: int, more: bool) -> None:
        if self._left < 0:
            return
        self._left -= size
        if self._left < 0:
            self._left = 0
            raise RuntimeError("the body is longer than its content-length")
        if self._left and not more:
            raise RuntimeError("the body is shorter than its content-length")

    def _finish(self) -> None:
        self.complete = True
        self.wake()
        self.protocol.answered(self)
