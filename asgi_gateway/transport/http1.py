"""The only place that speaks HTTP/1.1 to a target (RFC 9112)."""

import asyncio
from typing import Any, cast

import httptools

from ..asgi import Header, Message, Receive
from ..errors import CallerLeft, UpstreamError
from ..exchange import Call

HIGH_WATER = 64 * 1024
"""Body bytes held for a caller who reads slowly, before reading from the target pauses."""
HEAD_BYTES = 64 * 1024
"""The largest head of an answer."""

NO_BODY = frozenset({204, 304})


class Http1Answer:
    """An answer on its way over one connection."""

    __slots__ = ("_chunks", "_failure", "complete", "connection", "headers", "status", "trailers", "waiter")

    def __init__(self, connection: "Connection") -> None:
        self.connection: Connection | None = connection
        self.status = 0
        self.headers: list[Header] = []
        self.trailers: list[Header] = []
        self._chunks: list[bytes] = []
        self._failure: Exception | None = None
        self.complete = False
        self.waiter: asyncio.Future[None] | None = None

    def take(self) -> bytes:
        chunks = self._chunks
        if not chunks:
            return b""
        self._chunks = []
        if self.connection is not None:
            self.connection.taken()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def read(self) -> bytes:
        while not self._chunks:
            if self._failure is not None:
                raise self._failure
            if self.complete or self.connection is None:
                return b""
            await self.connection.wait(self, "body")
        return self.take()

    def close(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None and connection.answer is self:
            connection.abort()

    def wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
        self.wake()

    @property
    def failure(self) -> Exception | None:
        return self._failure


class Connection(asyncio.Protocol):
    """One connection to a target. It serves one request at a time, and tells its owner when it is free or
    gone.
    """

    __slots__ = (
        "_buffered",
        "_close_delimited",
        "_drained",
        "_head",
        "_head_bytes",
        "_headers",
        "_interim",
        "_keep_alive",
        "_loop",
        "_method",
        "_owner",
        "_parser",
        "_paused",
        "_uploading",
        "answer",
        "call",
        "closed",
        "idle_since",
        "transport",
        "used",
    )

    def __init__(self, owner: "Owner", loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.answer: Http1Answer | None = None
        self.call: Call | None = None
        self.closed = False
        self.used = 0
        """Requests that were sent over it."""
        self.idle_since = 0.0
        self._drained: asyncio.Future[None] | None = None
        self._paused = False
        self._uploading: asyncio.Task[None] | None = None
        self._method = ""
        self._reset()

    def _reset(self) -> None:
        self._head = False
        self._head_bytes = 0
        self._headers: list[Header] = []
        self._interim = False
        self._close_delimited = False
        self._keep_alive = False
        self._buffered = 0

    # Sending a request

    async def request(
        self, method: str, head: bytes, first: Message | None, receive: Receive | None, call: Call
    ) -> Http1Answer:
        """Send a request and wait for the head of its answer. The caller closes the answer in any case.

        `first` is what `receive` gave already.
        """
        self._reset()
        self._method = method
        self.used += 1
        self.call = call
        answer = self.answer = Http1Answer(self)
        try:
            if first is None or receive is None:
                call.body_read = True
                self.transport.write(head)
            else:
                self._upload(head, first, receive, call)
            # Not `self._head`: a complete answer frees the connection, which may serve somebody else already.
            while not answer.status:
                if answer.failure is not None:
                    raise answer.failure
                await self.wait(answer, "head")
        except BaseException:
            answer.close()
            raise
        return answer

    async def wait(self, answer: Http1Answer, phase: Any) -> None:
        """Wait until something of the answer arrives; the ticker ends the wait when the idle time is over."""
        call = self.call
        assert call is not None
        waiter = answer.waiter = call.waiter = self._loop.create_future()
        call.phase = phase
        call.limit = self._owner.idle_limit() if self._uploading is None else call.limit
        try:
            await waiter
        finally:
            answer.waiter = call.waiter = None

    def _upload(self, head: bytes, message: Message, receive: Receive, call: Call) -> None:
        """Send head and body: at once if the body is there already, else from a task beside the waiting for
        an answer.
        """
        body = body_of(message)
        framing = framing_of(head)
        if not message.get("more_body", False):
            call.body_read = True
            if framing is None:
                head = with_field(head, b"content-length: %d" % len(body)) if body else head
                self.transport.write(head + body)
            elif framing:
                self.transport.write(head + (chunk(body) if body else b"") + b"0\r\n\r\n")
            else:
                self.transport.write(head + body)
            return
        if framing is None:
            head, framing = with_field(head, b"transfer-encoding: chunked"), True
        self.transport.write(head + (chunk(body) if framing and body else body))
        self._uploading = self._loop.create_task(self._pump(receive, framing, call))

    async def _pump(self, receive: Receive, chunked: bool, call: Call) -> None:
        answer = self.answer
        try:
            more = True
            while more:
                await self._drain(call)
                # While the caller is slow nobody can blame the target.
                call.limit = float("inf")
                message = await receive()
                body, more = body_of(message), message.get("more_body", False)
                call.limit = self._owner.idle_limit()
                if body:
                    self.transport.write(chunk(body) if chunked else body)
            if chunked:
                self.transport.write(b"0\r\n\r\n")
            call.body_read = True
        except Exception as error:
            if answer is not None:
                answer.fail(error)
        self._uploading = None
        if answer is not None and answer.complete:
            self._finish()

    async def _drain(self, call: Call) -> None:
        if self._drained is not None and not self.closed:
            call.limit = self._owner.idle_limit()
            await asyncio.shield(self._drained)

    # Receiving the answer

    def data_received(self, data: bytes) -> None:
        if self.answer is None:
            # Bytes that nobody asked for: whose answer they would be is a guess.
            self.abort()
            return
        if not self._head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(
                UpstreamError("protocol_error", "head", "an upgrade that was not asked for", sent=True)
            )
            return
        except httptools.HttpParserError as error:
            self._fail(
                UpstreamError(
                    "protocol_error",
                    "body" if self._head else "head",
                    # Of what our own callbacks raise, the parser says only that they did.
                    str(error.__context__ or error),
                    sent=True,
                )
            )
            return
        if not self._head and self._head_bytes > HEAD_BYTES:
            self._fail(
                UpstreamError(
                    "protocol_error", "head", f"its head is larger than {HEAD_BYTES} bytes", sent=True
                )
            )
            return
        answer = self.answer
        if answer is not None and self._head:
            if self._buffered > HIGH_WATER and not self._paused:
                self._paused = True
                self.transport.pause_reading()
            answer.wake()
            if answer.complete and self._uploading is None:
                self._finish()

    def on_message_begin(self) -> None:
        if self.answer is None or self.answer.complete:
            # A second answer behind the first, or a part of one: it would become part of the next.
            self._keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        # The parser leaves spaces behind a value, which are no part of it (RFC 9112 5.1). But a tab behind
        # `chunked` is another coding to it.
        self._headers.append((name, value.rstrip(b" " if name == b"transfer-encoding" else b" \t")))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 100:
            raise ValueError(f"{status} is not a status")
        if status < 200:
            self._interim = True
            return
        answer = self.answer
        if answer is None or answer.complete:
            return
        # What came with the end of the head may be body: only then the fields are counted.
        if self._head_bytes > HEAD_BYTES < sum(len(name) + len(value) + 4 for name, value in self._headers):
            raise ValueError(f"its head is larger than {HEAD_BYTES} bytes")
        codings = [value.lower() for name, value in self._headers if name == b"transfer-encoding"]
        if codings and codings != [b"chunked"]:
            # Nobody further on is told of a coding: the field stays with the connection.
            raise ValueError("its Transfer-Encoding is not exactly chunked")
        answer.status = status
        answer.headers, self._headers = self._headers, []
        self._keep_alive = self._parser.should_keep_alive()
        self._head = True
        if self._method == "HEAD":
            answer.complete = True
        elif status not in NO_BODY:
            self._close_delimited = not codings and not any(
                name == b"content-length" for name, _ in answer.headers
            )

    def on_body(self, body: bytes) -> None:
        answer = self.answer
        if answer is None or answer.complete:
            self._keep_alive = False
            return
        answer._chunks.append(body)
        self._buffered += len(body)

    def on_message_complete(self) -> None:
        answer, fields, self._headers = self.answer, self._headers, []
        if self._interim:
            self._interim = False
        elif answer is not None and not answer.complete:
            answer.complete = True
            answer.trailers = fields

    def taken(self) -> None:
        self._buffered = 0
        if self._paused:
            self._paused = False
            self.transport.resume_reading()

    def _finish(self) -> None:
        """The answer is complete and the request was sent: the connection is free, or of no more use."""
        answer, self.answer, self.call = self.answer, None, None
        if answer is not None:
            answer.connection = None
        if self._paused:
            self.taken()
        if not self._keep_alive or self._close_delimited or self.transport.is_closing():
            self.abort()
            return
        if self._method == "HEAD":
            # The parser still waits for the body that the head announced.
            self._parser = httptools.HttpResponseParser(self)
        self._owner.released(self)

    # The ends

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=HIGH_WATER)

    def eof_received(self) -> None:
        if self._close_delimited and self.answer is not None and self._head:
            self.answer.complete = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._owner.lost(self)
        self.resume_writing()
        answer = self.answer
        if answer is None:
            return
        if self._close_delimited and exc is None:
            answer.complete = True
        if exc is not None and not answer.complete:
            phase: Any = "body" if self._head else "head"
            answer.fail(UpstreamError("reset", phase, str(exc), sent=True))
        self._let_go()
        answer.wake()

    def _fail(self, error: UpstreamError) -> None:
        answer = self.answer
        if answer is not None:
            # What comes behind a complete answer is no fault of that answer.
            if answer.complete:
                answer.wake()
            else:
                answer.fail(error)
        self.abort()

    def abort(self) -> None:
        """Close the connection now; what is on its way is lost."""
        self._let_go()
        if not self.closed:
            self.closed = True
            self._owner.lost(self)
            self.transport.abort()

    def _let_go(self) -> None:
        answer, self.answer, self.call = self.answer, None, None
        if answer is not None:
            answer.connection = None
            if not answer.complete:
                # Whoever waits for it, when somebody else closes the connection, is told.
                phase: Any = "body" if self._head else "head"
                answer.fail(UpstreamError("reset", phase, "the connection was closed", sent=True))
        if self._uploading is not None:
            self._uploading.cancel()
            self._uploading = None

    def pause_writing(self) -> None:
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)


class Owner:
    """What a connection tells those who keep it."""

    def released(self, connection: Connection) -> None:
        raise NotImplementedError

    def lost(self, connection: Connection) -> None:
        raise NotImplementedError

    def idle_limit(self) -> float:
        """Monotonic seconds until which the next bytes have to come."""
        raise NotImplementedError


def body_of(message: Message) -> bytes:
    if message["type"] == "http.disconnect":
        raise CallerLeft
    body: bytes = message.get("body", b"")
    return body


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


def framing_of(head: bytes) -> bool | None:
    """Whether the head says chunked (True), a length (False), or nothing yet."""
    if b"\r\ncontent-length:" in head:
        return False
    return True if b"\r\ntransfer-encoding:" in head else None


def with_field(head: bytes, field: bytes) -> bytes:
    return head[:-2] + field + b"\r\n\r\n"
