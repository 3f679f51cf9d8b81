"""The only place that decides about a connection: whose turn it is, who left, when it ends and how."""

import asyncio
import socket
import struct
from collections import deque
from typing import Any

from ..asgi import Scope
from ..config import Limits
from .cycle import Cycle
from .head import Refused
from .lines import farewell
from .lingering import Lingering, unread
from .reader import Reader

PIPELINE = 128
"""Requests that may wait behind another one on their connection."""
SHUTDOWN = 1.0
"""Seconds in which the rest of a head has to come while the server shuts down."""
RESET = struct.pack("ii", 1, 0)


class GatewayProtocol(Reader):
    """One connection. Cancels the task of a request as soon as its caller is gone, a FIN included."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.current: Cycle | None = None
        """The request that is being answered."""
        self.waiting: deque[Cycle] = deque()
        """Pipelined requests: read, and not begun."""
        self.refusal: Refused | None = None
        """Why nothing more is read; said when the answers before it are out."""
        self.surprising = False
        """Whether only the answer tells the caller that it is the last: it may have sent more already."""
        self.idle_since = 0.0
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.idle()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        self.leave()
        self.flow.resume_writing()
        self.stop_timer()
        self.release()

    def release(self) -> None:
        """Let go of those that know this connection, so that nobody has to collect the ring."""
        self.reading = None
        self.parser = None  # type: ignore[assignment]

    def eof_received(self) -> None:
        """A FIN: the caller left. Whoever only closes its writing side looks the same."""
        if self.current is not None:
            self.cut(self.current)

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
        if cycle is not self.current:
            return
        self.leave()
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
        elif self.in_head() or unread(self.transport):
            self.stop_timer()
            self.timer = self.loop.call_later(SHUTDOWN, self.expire)
        else:
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
        else:
            self.idle()
        self.read_on()

    def read_on(self) -> None:
        """Somebody waits for bytes: go on reading, unless whole requests wait already."""
        if self.flow.read_paused and not self.waiting:
            self.flow.resume_reading()

    def switch(self) -> None:
        """The caller wants a WebSocket."""
        if self.current is None:
            self.stop_timer()
            self.handle_websocket_upgrade()
            self.release()
        else:
            self.refuse(Refused.bad("a WebSocket cannot begin behind another request"))

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

    def say(self, refused: Refused) -> None:
        date = self.server_state.default_headers
        self.transport.write(farewell(refused.status, refused.reason, refused.detail, date))
        self.close()

    def close(self) -> None:
        """Close after what was written; softly if the caller still sends, so that it reads the answer."""
        more = self.waiting or self.in_head() or (self.reading is not None and self.reading.more_body)
        self.waiting.clear()
        self.stop_timer()
        if self.refusal is not None or self.surprising or more or unread(self.transport):
            self.transport.set_protocol(Lingering(self.transport, self.connection_lost))
        else:
            self.transport.close()

    # One timer for each connection and period of keep-alive, not for each request

    def idle(self) -> None:
        """Nothing is due on this connection: it has so much time until the next head is complete."""
        self.idle_since = self.loop.time()
        if self.timer is None:
            self.timer = self.loop.call_later(self.timeout_keep_alive, self.expire)

    def expire(self) -> None:
        self.timer = None
        if self.current is not None:
            return
        left = 0.0 if self.closing else self.idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self.timer = self.loop.call_later(left, self.expire)
        else:
            self.transport.close()

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def protocol(limits: Limits) -> type[GatewayProtocol]:
    """The protocol with these limits, as uvicorn wants it: a class."""
    return type("LimitedProtocol", (GatewayProtocol,), {"limits": limits})
