"""Connections without sockets and time without clocks: both move only as far as a test says."""

import asyncio
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

TURNS = 12
"""Turns of the loop after which everything has happened that bytes set off."""


class Loop(asyncio.SelectorEventLoop):
    """A loop that never waits: it does one turn, and its time is what the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.errors: list[dict[str, Any]] = []
        self.set_exception_handler(lambda loop, context: self.errors.append(context))

    def time(self) -> float:
        return self.now

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.call_soon(self.stop)
            self.run_forever()


class Pipe(asyncio.Transport):
    """One end of a connection, as a protocol sees it; the test is the other end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = loop
        self._protocol = protocol
        self.written = bytearray()
        self.paused = False
        self.closing = False
        self.closed = False
        self.clogged = False
        protocol.connection_made(self)

    # What the protocol says

    def write(self, data: Any) -> None:
        if not self.closing:
            self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Any:
        return self._protocol

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self._end(None)

    def abort(self) -> None:
        self._end(None)

    # What the other end does

    def say(self, data: bytes) -> None:
        if not self.closing:
            self._protocol.data_received(data)

    def leave(self) -> None:
        """A FIN."""
        if not self.closing and not self._protocol.eof_received():
            self.close()

    def clog(self, clogged: bool) -> None:
        """Stop or go on taking what the protocol writes."""
        self.clogged = clogged
        if clogged:
            self._protocol.pause_writing()
        else:
            self._protocol.resume_writing()

    def reset(self) -> None:
        self._end(ConnectionResetError("Connection reset by peer"))

    def _end(self, error: Exception | None) -> None:
        if not self.closing:
            self.closing = True
            self._loop.call_soon(self._lose, error)

    def _lose(self, error: Exception | None) -> None:
        self.closed = True
        self._protocol.connection_lost(error)


async def turns(number: int = TURNS) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


Pieces = Sequence[tuple[bytes, bool]]
"""Bytes as they arrive, and whether the loop turns before the next ones do."""


async def arrive(pipe: Pipe, pieces: Pieces) -> None:
    """Say all of it, as fast as the protocol wants to hear it."""
    for data, breathes in pieces:
        if pipe.paused:
            await turns()
        if pipe.closing or pipe.paused:
            return
        pipe.say(data)
        if breathes:
            await turns()


Cut = tuple[int, list[float], list[bool]]
"""How to cut bytes of any length: a kind, places, and where the loop turns."""


@st.composite
def cuts(draw: st.DrawFn) -> Cut:
    kind = draw(st.integers(0, 3))
    places = draw(st.lists(st.floats(0, 1, exclude_max=True), max_size=8)) if kind > 1 else []
    return kind, places, draw(st.lists(st.booleans(), min_size=1, max_size=4))


def cut(data: bytes, how: Cut) -> Pieces:
    """The pieces of some bytes: the first kind of cut is each byte alone."""
    kind, places, breathing = how
    if kind == 0 and len(data) < 4096:
        marks = list(range(len(data)))
    else:
        marks = sorted({0, *(int(place * len(data)) for place in places)})
    ends = [*marks[1:], len(data)]
    return [
        (data[begin:end], breathing[index % len(breathing)])
        for index, (begin, end) in enumerate(zip(marks, ends, strict=True))
        if begin < end
    ]


def whole(data: bytes) -> Pieces:
    return [(data, True)] if data else []
