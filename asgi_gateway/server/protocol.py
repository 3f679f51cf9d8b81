"""The only place that decides about a connection: whose turn it is, who left, when it ends and how."""

import asyncio
import socket
import struct
import sys
from collections import deque
from typing import Any, ClassVar

from ..asgi import Scope
from ..config import Server
from ..turn import SMALL, Turn
from .cycle import Cycle
from .head import Refused
from .lines import farewell
from .lingering import LINGER, Lingering, unread
from .reader import EXTENSIONS, Reader
from .sweeping import Patience, Sweeper
from .tls import shown

PIPELINE = 128
"""Requests that may wait behind another one on their connection."""
CROWDED = 0.1
"""Seconds that a caller for whom there is no room has to read that: others wait for the place."""
SHUTDOWN = 1.0
"""Seconds in which a request that is on its way has to come while the server shuts down."""
NO_BOUND = sys.maxsize
RESET = struct.pack("ii", 1, 0)


class GatewayProtocol(Reader):
    """One connection. Cancels the task of a request as soon as its caller is gone, a FIN included."""

    sweeper: ClassVar[Sweeper]
    most: ClassVar[int]
    half_close: ClassVar[bool]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.current: Cycle | None = None
        """The request that is being answered."""
        self.waiting: deque[Cycle] = deque()
        """Pipelined requests: read, and not begun."""
        self.refusal: Refused | None = None
        """Why nothing more is read; said when the answers before it are out."""
        self.served = 0
        """Requests that were answered."""
        self.surprising = False
        """Whether only the answer tells the caller that it is the last: it may have sent more already."""
        self.resumed = 0
        """How often the caller took enough for more to be written."""
        self.held = b""
        """What goes to the caller when the loop has turned."""
        self.leaving = False
        """Whether it is closed as soon as the caller has taken what was written."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.turn = Turn.of(self.loop)
        if (told := shown(transport)) is not None:
            self.extensions = {**EXTENSIONS, "tls": told}
        if len(self.connections) > self.most:
            detail = "this gateway has no room for more connections"
            self.surprising = True
            self.say(Refused(503, "too_many_connections", detail), CROWDED)
        else:
            self.sweeper.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        self.sweeper.discard(self)
        self.held = b""
        self.leave()
        self.flow.resume_writing()
        self.release()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.resumed += 1

    def release(self) -> None:
        """Let go of those that know this connection, so that nobody has to collect the ring."""
        self.reading = None
        self.parser = None  # type: ignore[assignment]

    def eof_received(self) -> bool:  # type: ignore[override]
        """A FIN: the caller left. Whoever only closes its writing side looks the same, and may be meant."""
        if self.current is None:
            self.flush()
            return False
        if self.half_close and not (self.reading is not None and self.reading.more_body):
            last = self.waiting[-1] if self.waiting else self.current
            last.keep_alive = False
            return True
        self.cut(self.current)
        return False

    def leave(self) -> None:
        """End what is being answered here; it is not wanted any more."""
        self.waiting.clear()
        cycle, self.current = self.current, None
        if cycle is not None:
            cycle.disconnected = True
            cycle.wake()
            if cycle.task is not None:
                # A task that is cancelled before its first step never comes to its `finally`.
                cycle.task.add_done_callback(self.tasks.discard)
                cycle.task.cancel()

    def cut(self, cycle: Cycle) -> None:
        """End the connection by a reset, so that a part of an answer never looks like a whole one."""
        if cycle is self.current:
            self.leave()
            self.reset()

    def reset(self) -> None:
        """Close it at once; what was not taken is lost."""
        self.held = b""
        connection = self.transport.get_extra_info("socket")
        if connection is not None and connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.transport.abort()

    def shutdown(self) -> None:
        """Called by the server: answer what has begun to arrive, and close."""
        self.closing = True
        if self.waiting:
            self.waiting[-1].keep_alive = False
        elif self.current is not None:
            self.current.keep_alive = False
        else:
            # The next request may be on its way already: it is answered, and told that it is the last.
            self.loop.call_later(SHUTDOWN, self.late)

    def late(self) -> None:
        """No request came any more."""
        if self.current is None:
            self.transport.close()

    # Whose turn it is

    def admit(self, scope: Scope, keep_alive: bool, expects: bool) -> None:
        """Answer it, or let it wait behind those before it."""
        cycle = Cycle(self, scope, keep_alive, expects)
        if self.current is None:
            self.begin(cycle)
        elif len(self.waiting) < PIPELINE:
            self.waiting.append(cycle)
            self.flow.pause_reading()
        else:
            raise Refused.bad("too many requests wait on this connection")
        self.reading = cycle

    def begin(self, cycle: Cycle) -> None:
        self.current = cycle
        cycle.task = self.loop.create_task(cycle.run(self.app))
        self.tasks.add(cycle.task)

    def answered(self, cycle: Cycle) -> None:
        """An answer is complete: go on with the next request, or wait for it, or close."""
        self.server_state.total_requests += 1
        self.served += 1
        self.current = None
        if self.transport.is_closing():
            return
        if not cycle.keep_alive:
            self.close()
            return
        if self.waiting:
            self.begin(self.waiting.popleft())
        elif self.refusal is not None:
            self.say(self.refusal)
            return
        self.read_on()

    def read_on(self) -> None:
        """Somebody waits for bytes: go on reading, unless whole requests wait already."""
        if self.flow.read_paused and not self.waiting:
            self.flow.resume_reading()

    def switch(self) -> None:
        """The caller wants a WebSocket."""
        if self.current is None:
            self.flush()
            self.sweeper.discard(self)
            self.handle_websocket_upgrade()
            self.release()
        else:
            self.refuse(Refused.bad("a WebSocket cannot begin behind another request"))

    # What is written

    def hold(self, piece: bytes) -> None:
        """Give it to the caller when the loop has turned, or together with what follows before that."""
        if not self.held:
            self.turn.add(self)
        self.held += piece

    def write(self, piece: bytes) -> None:
        """Give it to the caller; what is small when the loop has turned, if others are served too."""
        held = self.held
        if len(held) + len(piece) > SMALL:
            self.flush()
            self.transport.write(piece)
        elif not self.turn.crowded:
            self.held = held + piece
            self.flush()
        elif held:
            self.held = held + piece
        else:
            self.hold(piece)

    def flush(self) -> None:
        """Give the caller what is held."""
        held, self.held = self.held, b""
        if held and not self.transport.is_closing():
            self.transport.write(held)

    # How it ends

    def refuse(self, refused: Refused) -> None:
        """Read no further. The answers that are due come first, then the reason."""
        if self.refusal is not None:
            return
        self.refusal = refused
        if self.reading is not None and self.reading.more_body:
            self.give_up(self.reading, refused)
        elif self.current is None:
            self.say(refused)

    def give_up(self, cycle: Cycle, refused: Refused) -> None:
        """The body of a request cannot be read."""
        if cycle in self.waiting:
            self.waiting.pop()
        elif cycle is not self.current:  # it was answered early: nothing is left to say
            self.close()
        elif cycle.started:
            self.cut(cycle)
        else:
            self.leave()
            self.say(refused)

    def say(self, refused: Refused, linger: float = LINGER) -> None:
        date = self.server_state.default_headers
        self.write(farewell(refused.status, refused.reason, refused.detail, date))
        self.close(linger)

    def close(self, linger: float = LINGER) -> None:
        """Close after what was written; softly if the caller still sends, so that it reads the answer."""
        self.flush()
        more = self.waiting or self.in_head() or (self.reading is not None and self.reading.more_body)
        self.waiting.clear()
        self.leaving = True
        if self.refusal is not None or self.surprising or more or unread(self.transport):
            self.transport.set_protocol(Lingering(self.transport, self.connection_lost, linger))
        else:
            self.transport.close()


def protocol(server: Server, most: int = NO_BOUND) -> type[GatewayProtocol]:
    """The protocol for one server, as uvicorn wants it: a class. `most`: connections at one time."""
    own = {
        "limits": server.limits,
        "sweeper": Sweeper(Patience.of(server)),
        "most": most,
        "half_close": server.half_close,
    }
    return type("ServedProtocol", (GatewayProtocol,), own)
