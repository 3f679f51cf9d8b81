"""The only place that speaks HTTP/1.1 to a target (RFC 9112)."""

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

import httptools

from ..asgi import Header, Receive
from ..call import Call
from ..errors import Phase, UpstreamError
from ..hops import HOP_BY_HOP, unnamed
from ..readable import asked_again
from ..turn import SMALL, Turn
from .answer import Http1Answer
from .upload import Upload

HIGH_WATER = 64 * 1024
"""Body bytes held for a caller who reads slowly, before reading from the target pauses."""
HEAD_BYTES = 64 * 1024
"""The largest head of an answer, with all interim answers before it; and the most of its trailers."""

END = b"\r\n\r\n"
TOO_LARGE = f"its fields are larger than {HEAD_BYTES} bytes"

TOO_LATE = 408
NO_BODY = frozenset({204, 304})
FRAMING = frozenset({b"content-length", b"transfer-encoding"})
SPECIAL = HOP_BY_HOP | FRAMING
"""Fields that say something about the connection or the message on it."""
SPACE = 0x20
FOREVER = float("inf")


class Connection(asyncio.Protocol):
    """One connection to a target. It serves one request at a time, and tells its owner when it is free or
    gone.
    """

    __slots__ = (
        "_bodiless",
        "_buffered",
        "_drained",
        "_head",
        "_headers",
        "_held",
        "_interim",
        "_keep_alive",
        "_loop",
        "_method",
        "_owner",
        "_parser",
        "_paused",
        "_special",
        "_turn",
        "_until_close",
        "_uploading",
        "answer",
        "call",
        "closed",
        "disturbed",
        "idle_since",
        "opened",
        "transport",
        "used",
    )

    def __init__(self, owner: "Owner", loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._turn = Turn.of(loop)
        self._parser = httptools.HttpResponseParser(self)
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.answer: Http1Answer | None = None
        self.call: Call | None = None
        self.closed = False
        self.opened = self.idle_since = loop.time()
        self.used = 0
        """Requests that were sent over it."""
        self.disturbed: Callable[[], object] = bool
        """Whether something waits to be read, an end among others."""
        self._drained: asyncio.Future[None] | None = None
        self._paused = False
        self._uploading: asyncio.Task[None] | None = None
        self._method = ""
        self._reset()

    def _reset(self) -> None:
        self._held = b""
        """A request that goes out when the loop has turned."""
        self._head = False
        self._headers: list[Header] = []
        self._special: list[Header] = []
        """The fields of the head that its connection and its framing depend on."""
        self._interim = False
        self._until_close = False
        self._keep_alive = False
        self._buffered = 0
        self._bodiless = 0
        """Bytes since the last piece of a body: head, interim answers, sizes of chunks, trailers."""

    # Sending a request

    async def request(
        self, method: str, head: bytes, upload: Upload | None, receive: Receive | None, call: Call
    ) -> Http1Answer:
        """Send a request and wait for the head of its answer. Whoever gets the answer closes it."""
        self._reset()
        self._method = method
        self.used += 1
        self.call = call
        answer = self.answer = Http1Answer(self)
        try:
            call.phase = "head"
            first = head if upload is None else upload.first
            if upload is not None and upload.more:
                assert receive is not None
                self.transport.write(first)
                self._uploading = self._loop.create_task(self._pump(answer, upload, receive, call))
            else:
                call.body_read = True
                if self._turn.crowded and len(first) <= SMALL:
                    self._held = first
                    self._turn.add(self)
                else:
                    self.transport.write(first)
            # Not `self._head`: a complete answer frees the connection, which may serve somebody else already.
            while not answer.status:
                if answer.failure is not None:
                    raise answer.failure
                await self.wait(answer, "head")
        except BaseException:
            answer.close()
            # Its traceback knows this frame, which knows the answer: nobody should have to collect the ring.
            answer.failure = None
            raise
        return answer

    def flush(self) -> None:
        """Send the request that is held. Where the target has just closed it stays: nobody has seen it."""
        if self._held and not (self.closed or self.transport.is_closing()):
            self.transport.write(self._held)
            self._held = b""

    async def wait(self, answer: Http1Answer, phase: Phase) -> None:
        """Wait until something of the answer arrives; the ticker ends the wait when its time is over."""
        call = self.call
        assert call is not None
        waiter = answer.waiter = call.waiter = self._loop.create_future()
        if phase == "body":
            call.phase, patience = phase, call.timeouts.stream if call.streaming else call.timeouts.idle
            call.limit = self._owner.now() + patience
        elif self._uploading is None:
            call.phase, call.limit = phase, self._owner.now() + call.timeouts.head
        # Else the pump says what is waited for.
        try:
            await waiter
        finally:
            answer.waiter = call.waiter = None

    async def _pump(self, answer: Http1Answer, upload: Upload, receive: Receive, call: Call) -> None:
        """Send the body, beside the waiting for an answer, which may come before the body is complete."""
        try:
            while upload.more:
                if self._drained is not None and not self.closed:
                    self._expect(answer, call, "write", call.timeouts.write)
                    await asyncio.shield(self._drained)
                # While the caller is slow nobody can blame the target.
                self._expect(answer, call, "head", FOREVER)
                piece = upload.piece(await receive())
                if self.disturbed():
                    # An early answer, perhaps with the end behind it: writing first would lose it to a reset.
                    await asyncio.sleep(0)
                self.transport.write(piece)
        except Exception as error:
            # A part of a body is on its way: nothing else can follow it.
            answer.fail(error)
            if self.answer is answer:
                self.abort()
            return
        call.body_read = True
        self._uploading = None
        self._expect(answer, call, "head", call.timeouts.head)
        if answer.complete and self.answer is answer:
            self._finish()

    def _expect(self, answer: Http1Answer, call: Call, phase: Phase, seconds: float) -> None:
        """What the request waits for, as long as nothing of an answer is there."""
        if not answer.status:
            call.phase, call.limit = phase, self._owner.now() + seconds

    # Receiving the answer

    def data_received(self, data: bytes) -> None:
        answer = self.answer
        if answer is None or self._held:
            # Bytes that nobody asked for: whose answer they would be is a guess.
            self.abort()
            return
        if not self._head:
            self._bodiless += len(data)
        headless, before = not self._head, self._buffered
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("an upgrade that was not asked for")
            return
        except httptools.HttpParserError as error:
            # Of what our own callbacks raise, the parser says only that they did.
            self._fail(str(error.__context__ or error))
            return
        if self._buffered != before:
            self._bodiless = 0
        elif not headless:
            self._bodiless += len(data)
        if self._bodiless > HEAD_BYTES and not answer.complete:
            self._fail(TOO_LARGE)
            return
        if not self._head:
            return
        if self._buffered > HIGH_WATER and not self._paused:
            self._paused = True
            self.transport.pause_reading()
        answer.wake()
        if answer.complete:
            if self._method == "HEAD" and not END.endswith(data[-len(END) :]):
                # The parser takes what comes behind for the body that the head announced.
                self._keep_alive = False
            if self._uploading is None:
                self._finish()

    def on_message_begin(self) -> None:
        if self.answer is None or self.answer.complete:
            # A second answer behind the first, or a part of one: it would become part of the next.
            self._keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if value and value[-1] <= SPACE:
            # The parser leaves blanks behind a value, which are no part of it (RFC 9112 5.1). But a tab
            # behind `chunked` is another coding to it.
            value = value.rstrip(b" " if name == b"transfer-encoding" else b" \t")
        if name in SPECIAL:
            self._special.append((name, value))
            if name != b"content-length":
                return
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status, version = self._parser.get_status_code(), self._parser.get_http_version()
        if status < 100 or version not in ("1.1", "1.0"):
            raise ValueError(f"HTTP/{version} {status} is not spoken here")
        if status < 200:
            self._interim = True
            return
        answer = self.answer
        if answer is None or answer.complete:
            return
        headers, self._headers = self._headers, []
        special, self._special = self._special, []
        # What came with the end of the head may be body: only then the fields are counted.
        if self._bodiless > HEAD_BYTES < size(headers) + size(special):
            raise ValueError(TOO_LARGE)
        framing = [pair for pair in special if pair[0] in FRAMING]
        if framing and not has_one_meaning(framing, version):
            raise ValueError("its framing has more than one meaning")
        if len(special) > len(framing):
            headers = unnamed(headers, [value for name, value in special if name == b"connection"])
        answer.status, answer.headers = status, headers
        answer.chunked = (b"transfer-encoding", b"chunked") in framing
        # A 408 may answer nothing, said while the request was on its way: the right one comes behind.
        self._keep_alive = self._parser.should_keep_alive() and status != TOO_LATE
        self._head = True
        self._bodiless = 0
        if self._method == "HEAD":
            answer.complete = True
        elif status not in NO_BODY:
            self._until_close = not framing

    def on_body(self, body: bytes) -> None:
        answer = self.answer
        if answer is None or answer.complete:
            self._keep_alive = False
            return
        answer.chunks.append(body)
        self._buffered += len(body)

    def on_message_complete(self) -> None:
        answer, fields, self._headers = self.answer, self._headers, []
        if self._interim:
            self._interim, self._special = False, []
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
        # Bytes of the request that still wait to go out would stand before the next one.
        unsent = self.transport.get_write_buffer_size()
        if not self._keep_alive or self._until_close or unsent or self.transport.is_closing():
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
        connection = transport.get_extra_info("socket")
        self.disturbed = asked_again(connection.fileno() if connection is not None else -1)

    def eof_received(self) -> None:
        if self._until_close and self.answer is not None and self._head:
            self.answer.complete = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._owner.lost(self)
        self.resume_writing()
        # It knows this connection: nobody should have to collect the ring.
        self._parser = cast("httptools.HttpResponseParser", None)
        answer = self.answer
        if answer is None:
            return
        if self._until_close and exc is None and self._head:
            answer.complete = True
        self._let_go(str(exc) if exc is not None else "")
        answer.wake()

    def _fail(self, what: str) -> None:
        """It is not HTTP, or was not asked for. What comes behind a complete answer is no fault of that."""
        answer = self.answer
        if answer is not None and not answer.complete:
            answer.fail(UpstreamError("protocol_error", "body" if self._head else "head", what, sent=True))
        self.abort()
        if answer is not None:
            answer.wake()

    def abort(self) -> None:
        """Close the connection now; what is on its way is lost."""
        self._let_go()
        if not self.closed:
            self.closed = True
            self._owner.lost(self)
            self.transport.abort()

    def _let_go(self, why: str = "") -> None:
        answer, self.answer, self.call = self.answer, None, None
        if answer is not None:
            answer.connection = None
            if not answer.complete:
                phase: Phase = "body" if self._head else "head"
                what = why or "the connection was closed"
                answer.fail(UpstreamError("reset", phase, what, sent=not self._held))
        if self._uploading is not None:
            if self._uploading is not asyncio.current_task(self._loop):
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

    now: Callable[[], float]
    """Monotonic seconds."""

    def released(self, connection: Connection) -> None:
        raise NotImplementedError

    def lost(self, connection: Connection) -> None:
        raise NotImplementedError


def size(headers: Sequence[Header]) -> int:
    """Bytes of the fields, with their separators."""
    return sum(len(name) + len(value) + 4 for name, value in headers)


def has_one_meaning(framing: Sequence[Header], version: str) -> bool:
    """One length, or exactly `chunked`, which only HTTP/1.1 has (RFC 9112 6.1 to 6.3)."""
    (name, value), *more = framing
    return not more and (name == b"content-length" or (value.lower() == b"chunked" and version == "1.1"))
