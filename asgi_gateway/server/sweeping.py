"""The only place that decides that a caller is too slow: one look at all connections, no timer for any."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..config import Server
from .head import Refused

if TYPE_CHECKING:
    from .cycle import Cycle
    from .protocol import GatewayProtocol

PERIOD = 1.0
"""Seconds between two looks, or a quarter of the shortest patience: how late slowness is noticed."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long callers may take, in seconds; `rate` is the least bytes per second, in both directions."""

    idle: float
    head: float
    body: float
    send: float
    rate: int

    @classmethod
    def of(cls, server: Server) -> "Patience":
        limits = server.limits
        return cls(server.keep_alive, limits.head, limits.body, limits.send, limits.rate)

    @property
    def period(self) -> float:
        return max(0.01, min(PERIOD, min(self.idle, self.head, self.body, self.send) / 4))


class Watch:
    """What is remembered of one connection between two looks."""

    __slots__ = (
        "drained",
        "got",
        "pending",
        "reading",
        "scope",
        "served",
        "silent",
        "since",
        "stuck",
        "waited",
    )

    def __init__(self, now: float) -> None:
        self.since = now
        """Since when nothing, or the same head, is on its way."""
        self.scope: object = None
        self.served = -1
        # The body of a request.
        self.reading: Cycle | None = None
        self.got = 0
        self.waited = self.silent = 0.0
        # The answer.
        self.pending = self.drained = 0
        self.stuck = 0.0


class Sweeper:
    """Looks at all connections of one server, again and again while there are any."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self._period = patience.period
        self._watched: dict[GatewayProtocol, Watch] = {}
        self._armed = False

    def __len__(self) -> int:
        return len(self._watched)

    def add(self, connection: "GatewayProtocol") -> None:
        self._watched[connection] = Watch(connection.loop.time())
        if not self._armed:
            self._armed = True
            connection.loop.call_later(self._period, self._sweep, connection.loop)

    def discard(self, connection: "GatewayProtocol") -> None:
        self._watched.pop(connection, None)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for connection, watch in list(self._watched.items()):
            if connection.loop is not loop:
                del self._watched[connection]
            elif connection.current is None and not connection.waiting:
                self._look_at_silence(connection, watch, now)
            else:
                watch.scope, watch.served = None, -1
                self._look_at_answer(connection, watch)
            if (reading := connection.reading) is not None and reading.more_body:
                self._look_at_body(connection, watch, reading)
        self._armed = bool(self._watched)
        if self._armed:
            loop.call_later(self._period, self._sweep, loop)

    def _look_at_silence(self, connection: "GatewayProtocol", watch: Watch, now: float) -> None:
        """Nothing is due: the next request has to come, and its head as a whole."""
        heading = connection.in_head()
        scope = connection.scope if heading else None
        if watch.scope is not scope or watch.served != connection.served:
            watch.scope, watch.served, watch.since = scope, connection.served, now
        elif heading or not connection.served:
            if now - watch.since > self.patience.head:
                if heading:
                    connection.refuse(
                        Refused(408, "head_timeout", "the head of the request did not come in time")
                    )
                else:
                    connection.close()
        elif now - watch.since > self.patience.idle:
            connection.close()

    def _look_at_body(self, connection: "GatewayProtocol", watch: Watch, reading: "Cycle") -> None:
        if reading is not watch.reading:
            watch.reading, watch.got, watch.waited, watch.silent = reading, reading.got, 0.0, 0.0
            return
        # While nobody reads, or the caller waits for our `100 Continue`, it is not the caller who is slow.
        if connection.flow.read_paused or (reading.expects and not reading.complete):
            return
        watch.waited += self._period
        watch.silent = 0.0 if reading.got > watch.got else watch.silent + self._period
        watch.got = reading.got
        slow = watch.waited > self.patience.body and reading.got < self.patience.rate * watch.waited
        if watch.silent > self.patience.body or slow:
            connection.refuse(Refused(408, "body_timeout", "the body of the request did not come in time"))

    def _look_at_answer(self, connection: "GatewayProtocol", watch: Watch) -> None:
        if not connection.flow.write_paused:
            watch.stuck, watch.drained, watch.pending = 0.0, 0, 0
            return
        pending = connection.transport.get_write_buffer_size()
        watch.drained += max(0, watch.pending - pending)
        watch.pending = pending
        watch.stuck += self._period
        if watch.stuck > self.patience.send and watch.drained < self.patience.rate * watch.stuck:
            assert connection.current is not None
            connection.cut(connection.current)
