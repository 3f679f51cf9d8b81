"""The only place that sends requests over HTTP/1.1 to a target (RFC 9112), and ends its connections."""

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

from ..asgi import Receive
from ..call import Call
from ..errors import Phase, UpstreamError
from ..readable import asked_again
from ..turn import SMALL, Turn
from .answer import Http1Answer
from .reading import HEAD_BYTES, TOO_LARGE, Reading
from .upload import Upload

HIGH_WATER = 64 * 1024
"""Body bytes held for a caller who reads slowly, before reading from the target pauses."""

END = b"\r\n\r\n"
FOREVER = float("inf")


class Connection(Reading):
    """One connection to a target. It serves one request at a time, and tells its owner when it is free or
    gone.
    """

    __slots__ = (
        "_drained",
        "_held",
        "_loop",
        "_owner",
        "_paused",
        "_turn",
        "_uploading",
        "call",
        "closed",
        "disturbed",
        "idle_since",
        "opened",
        "transport",
        "used",
    )

    def __init__(self, owner: "Owner", loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._owner = owner
        self._loop = loop
        self._turn = Turn.of(loop)
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
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
        self._held = b""
        """A request that goes out when the loop has turned."""

    # Sending a request

    async def request(
        self, method: str, head: bytes, upload: Upload | None, receive: Receive | None, call: Call
    ) -> Http1Answer:
        """Send a request and wait for the head of its answer. Whoever gets the answer closes it."""
        self._expect_answer(method)
        self._held = b""
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
