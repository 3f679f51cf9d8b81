"""The only place that makes messages out of the bytes of a WebSocket and back, as fast as they are taken."""

import asyncio
from collections import deque
from typing import cast

from websockets.exceptions import PayloadTooBig
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side

from .closing import CLOSE_SECONDS, End, sendable, shortened
from .frames import BINARY, TEXT, Masks, apply_mask, frame, measure

ENOUGH = 65536
"""Bytes of messages that wait to be taken before reading pauses."""
OVERHEAD = 128
"""What a waiting message costs beside its bytes."""
SILENT = "a ping was not answered"

Data = str | bytes


class Peer(asyncio.Protocol):
    """One side's connection, after its handshake. `websockets` judges the frames; a whole message in one,
    as nearly all are, takes a shorter way to the same result.
    """

    transport: asyncio.Transport

    def __init__(self, protocol: Protocol, loop: asyncio.AbstractEventLoop, ping: float | None) -> None:
        self.loop = loop
        self.protocol = protocol
        self.end: End | None = None
        """None while more messages may come."""
        self.open = False
        """Whether messages may be written: the handshake is done, and neither side has closed."""
        self.ready = False
        """Whether the handshake is done, so that what comes are frames."""
        self.deaf = False
        """Whether nothing that still comes has a meaning."""
        self.lost = False
        self.reading_paused = False
        self.write_paused = False
        self._limit = protocol.max_message_size or 0
        self._masks = Masks() if protocol.side is Side.CLIENT else None
        self._messages: deque[Data] = deque()
        self._queued = 0
        self._buffer = bytearray()
        """Bytes of frames that are not complete, or whose turn has not come."""
        self._needed = 0
        """Bytes that the buffer must have before the next look at it is worth while."""
        self._parts = bytearray()
        self._kind = BINARY
        self._waiter: asyncio.Future[None] | None = None
        self._drains: list[asyncio.Future[None]] = []
        self._gone: asyncio.Future[None] | None = None
        self._closing: asyncio.TimerHandle | None = None
        self._ping = ping
        self._pinger: asyncio.TimerHandle | None = None
        self._heard = True
        self._asked = False
        self._unsent = 0

    # Its connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost, self.deaf, self.open = True, True, False
        self._stop_timers()
        self._buffer.clear()
        self._finish(End(1006, failure="reset"))
        self.resume_writing()
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        for waiter in self._drains:
            if not waiter.done():
                waiter.set_result(None)
        self._drains.clear()

    def begin(self) -> None:
        """The handshake is done."""
        self.ready = self.open = True
        if self._ping is not None:
            self._pinger = self.loop.call_later(self._ping, self._beat, self._ping)
        self.read_on()

    # Reading

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if self.ready and not self._buffer and not self.reading_paused:
            self._read(data)
        elif not self.deaf:
            self._hold(data)

    def _hold(self, data: bytes) -> None:
        """Keep bytes of a frame that is not complete, or whose turn has not come."""
        self._buffer += data
        if not self.ready:
            if len(self._buffer) > ENOUGH:
                self._pause()
        elif not self.reading_paused and len(self._buffer) >= self._needed:
            self._again()

    def _again(self) -> None:
        data, self._buffer = bytes(self._buffer), bytearray()
        self._read(data)

    def _read(self, data: bytes) -> None:
        protocol, unmask, size, at = self.protocol, self._masks is None, len(data), 0
        self._needed = 0
        while at < size and self._queued <= ENOUGH and not self.deaf:
            measured = measure(data, at)
            if measured is None:
                break
            start, length = measured
            end, first, gathered = start + length, data[at], protocol.current_size
            # Of a message that is too long only the header is looked at.
            too_long = length > self._limit - (gathered or 0) and not first & 0x08
            if end > size and not too_long:
                self._needed = end - at
                break
            plain = TEXT <= first <= BINARY and gathered is None and not too_long
            if plain and (data[at + 1] > 127) is unmask:
                payload = data[start:end]
                if unmask:
                    payload = apply_mask(payload, data[start - 4 : start])
                self._put(first, payload)
            else:
                self._slowly(data[at:end])
            at = end
        if self._queued > ENOUGH:
            self._pause()
        if at < size and not self.deaf:
            self._buffer += data[at:] if at else data

    def _slowly(self, data: bytes) -> None:
        """Let `websockets` look at a frame: a fragment, a control frame, or one that is wrong."""
        protocol = self.protocol
        if data[0] & 0x0F == Opcode.CLOSE:
            # It may stand between fragments (RFC 6455 5.4), and then their message never ends.
            protocol.current_size = None
        protocol.receive_data(data)
        for event in protocol.events_received():
            assert isinstance(event, Frame)
            if event.opcode is Opcode.PING:
                if self.write_paused:  # RFC 6455 5.5.3 asks to answer the last one only
                    protocol.data_to_send()
            elif event.opcode is Opcode.CLOSE:
                assert protocol.close_rcvd is not None
                self.open, self.deaf = False, True
                self._await_end()
                self._finish(End(protocol.close_rcvd.code, protocol.close_rcvd.reason))
            elif event.opcode is not Opcode.PONG:
                self._gather(event)
        if protocol.parser_exc is not None:
            self._failed(protocol.parser_exc)
        self._flush()

    def _gather(self, fragment: Frame) -> None:
        if fragment.opcode is not Opcode.CONT:
            self._kind = TEXT if fragment.opcode is Opcode.TEXT else BINARY
        self._parts += fragment.data
        if fragment.fin:
            payload, self._parts = bytes(self._parts), bytearray()
            self._put(self._kind, payload)

    def _put(self, kind: int, payload: bytes) -> None:
        message: Data = payload
        if kind == TEXT:
            try:
                message = payload.decode()
            except UnicodeDecodeError as error:
                self.protocol.fail(1007, "a text is not UTF-8")
                self.protocol.parser_exc = error
                self._failed(error)
                self._flush()
                return
        if self.end is None:
            self._messages.append(message)
            self._queued += len(payload) + OVERHEAD
            self._wake()

    def _failed(self, error: Exception) -> None:
        """It broke the protocol, or a bound; it was told so."""
        self.open, self.deaf = False, True
        sent = self.protocol.close_sent
        if isinstance(error, PayloadTooBig):
            self._finish(End(1009, "a message is too large", "protocol_error"))
        else:
            self._finish(End(sent.code if sent is not None else 1002, str(error), "protocol_error"))
        self._await_end()

    def _pause(self) -> None:
        if not self.reading_paused and not self.transport.is_closing():
            self.reading_paused = True
            self.transport.pause_reading()

    def read_on(self) -> None:
        """There is room for messages: first for those that were read already."""
        if self._buffer and len(self._buffer) >= self._needed:
            self._again()
        if self.reading_paused and self._queued <= ENOUGH and not self.transport.is_closing():
            self.reading_paused = False
            self.transport.resume_reading()

    # What came

    async def next(self) -> Data | None:
        """The next message; None when there are no more, see `end`."""
        messages = self._messages
        while not messages:
            if self.end is not None:
                return None
            waiter = self._waiter = self.loop.create_future()
            await waiter
        message = messages.popleft()
        if not messages:
            self._queued = 0
            if self.reading_paused:
                self.read_on()
        return message

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _finish(self, end: End) -> None:
        if self.end is None:
            self.end = end
        self._wake()

    # Writing

    def write(self, message: Data) -> None:
        """Send a message; nothing happens if the peer takes none any more."""
        if self.open:
            mask = None if self._masks is None else self._masks.take()
            if isinstance(message, str):
                self.transport.write(frame(TEXT, message.encode(), mask))
            else:
                self.transport.write(frame(BINARY, message, mask))

    async def drained(self) -> None:
        """Wait until the peer has taken most of what was written, or is gone."""
        while self.write_paused and not self.lost:
            waiter = self.loop.create_future()
            self._drains.append(waiter)
            await waiter

    def _flush(self) -> None:
        for data in self.protocol.data_to_send():
            if self.transport.is_closing():
                return
            if data:
                self.transport.write(data)
            elif self.protocol.close_rcvd is not None and self.protocol.parser_exc is None:
                self._await_end()
                self.transport.close()
            elif self.transport.can_write_eof():
                # It may still send: closing with unread bytes resets, and the reason would be lost.
                self.transport.write_eof()

    # How it ends

    def say_close(self, code: int, reason: str = "") -> None:
        """Send a close frame, and give the peer a while to answer it; its messages still come."""
        if self.open:
            self.open = False
            self.protocol.send_close(sendable(code), shortened(reason))
            self._flush()
            self._await_end()

    def close(self, code: int, reason: str = "") -> None:
        """Send a close frame. Nobody takes the peer's messages any more."""
        self.say_close(code, reason)
        self._finish(End(code, reason))
        self._messages.clear()
        self._queued = 0
        self.read_on()

    def leave(self, code: int, reason: str = "") -> None:
        """Close without waiting for an answer. What was written is still sent."""
        self.close(code, reason)
        self._await_end()
        self.transport.close()

    def abort(self) -> None:
        self.transport.abort()

    async def gone(self) -> None:
        """Wait until the connection has ended: at most CLOSE_SECONDS, once it was closed."""
        if not self.lost:
            self._gone = self.loop.create_future()
            await self._gone

    def _await_end(self) -> None:
        if self._closing is None and not self.lost:
            self._closing = self.loop.call_later(CLOSE_SECONDS, self.abort)

    def _stop_timers(self) -> None:
        for timer in (self._closing, self._pinger):
            if timer is not None:
                timer.cancel()
        self._closing = self._pinger = None

    def _beat(self, period: float) -> None:
        """Look whether the peer lives, and ask it. Whatever comes from it is a sign of life."""
        self._pinger = None
        if not self.open:
            return
        self._pinger = self.loop.call_later(period, self._beat, period)
        heard, self._heard = self._heard, False
        if self.reading_paused:
            # Its answer cannot be heard: it is others who are slow.
            self._asked = False
            return
        if self.write_paused:
            # It is slow, and would see a ping late. It is not there any more if it took nothing at all.
            unsent = self.transport.get_write_buffer_size()
            if not heard and unsent == self._unsent:
                self._silent()
            self._unsent, self._asked = unsent, False
        elif self._asked and not heard:
            self._silent()
        else:
            self._asked = True
            self.protocol.send_ping(b"")
            self._flush()

    def _silent(self) -> None:
        self.protocol.fail(1011, SILENT)
        self._flush()
        self.open, self.deaf = False, True
        self._finish(End(1011, SILENT, "idle_timeout"))
        # It may have gone without a word: nobody waits for its answer.
        self._await_end()
        self.transport.close()
