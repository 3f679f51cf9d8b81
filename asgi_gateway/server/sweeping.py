"""The only place that decides that a caller is too slow: one look at all connections, no timer for any."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..config import Server
from .head import Refused
from .lingering import unsent

if TYPE_CHECKING:
    from .cycle import Cycle
    from .protocol import GatewayProtocol

PERIOD = 1.0
"""Seconds between two looks, or a quarter of the shortest patience: how late slowness is noticed."""
RESUMED = 48 * 1024
"""Bytes that a caller takes at least until more may be written: what waits for it may have grown then."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long callers may take, in seconds; `rate` is the least bytes per second, in both directions."""

    idle: float
    head: float
    body: float
    send: float
    rate: int

    @property
    def most(self) -> float:
        """Who has read something may take the next piece later: systems and programs read by large ones."""
        return 4 * self.send

    @classmethod
    def of(cls, server: Server) -> "Patience":
        limits = server.limits
        return cls(server.keep_alive, limits.head, limits.body, limits.send, limits.rate)

    @property
    def period(self) -> float:
        return max(0.01, min(PERIOD, min(self.idle, self.head, self.body, self.send) / 4))


class Pace:
    """Whether a caller keeps up: each byte buys it time, up to a bound, at the price of the least rate.

    Without the bound what was fast before would pay for hours of dripping.
    """

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = 0.0

    def begin(self, patience: float) -> None:
        """It has so many seconds until the first byte has to move."""
        self._left = patience

    def is_too_slow(self, moved: int, seconds: float, rate: int, most: float) -> bool:
        """`moved`: bytes in the last `seconds`; `most`: seconds that it may have in hand."""
        bought = moved / rate if rate else most * moved
        self._left = min(self._left - seconds + bought, most)
        return self._left < 0


class Watch:
    """What is remembered of one connection between two looks."""

    __slots__ = ("got", "pending", "reading", "resumed", "scope", "sending", "served", "since", "taking")

    def __init__(self, now: float) -> None:
        self.since = now
        """Since when nothing, or the same head, is on its way."""
        self.scope: object = None
        self.served = -1
        # The body of a request.
        self.reading: Cycle | None = None
        self.got = 0
        self.sending = Pace()
        # The answer.
        self.pending = self.resumed = 0
        self.taking = Pace()


class Sweeper:
    """Looks at all connections of one server, again and again while there are any."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
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
            elif connection.leaving:
                self._look_at_rest(connection, watch)
                continue
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
            if now - watch.since > self._patience.head:
                if heading:
                    connection.refuse(
                        Refused(408, "head_timeout", "the head of the request did not come in time")
                    )
                else:
                    connection.close()
        elif now - watch.since > self._patience.idle:
            connection.close()

    def _look_at_body(self, connection: "GatewayProtocol", watch: Watch, reading: "Cycle") -> None:
        patience = self._patience
        if reading is not watch.reading:
            watch.reading, watch.got = reading, reading.got
            watch.sending.begin(patience.body)
            return
        # While nobody reads, or the caller waits for our `100 Continue`, it is not the caller who is slow.
        if connection.flow.read_paused or (reading.expects and not reading.complete):
            return
        moved, watch.got = reading.got - watch.got, reading.got
        if watch.sending.is_too_slow(moved, self._period, patience.rate, patience.body):
            connection.refuse(Refused(408, "body_timeout", "the body of the request did not come in time"))

    def _look_at_answer(self, connection: "GatewayProtocol", watch: Watch) -> None:
        """While more can be written nobody waits for the caller."""
        pending = unsent(connection.transport) if connection.flow.write_paused else 0
        if self._is_stuck(connection, watch, pending):
            assert connection.current is not None
            connection.cut(connection.current)

    def _look_at_rest(self, connection: "GatewayProtocol", watch: Watch) -> None:
        """Its answers are complete, and their end is not out yet: no app waits for the caller any more."""
        if self._is_stuck(connection, watch, unsent(connection.transport)):
            connection.reset()

    def _is_stuck(self, connection: "GatewayProtocol", watch: Watch, pending: int) -> bool:
        """Whether the caller takes too little of what waits for it."""
        before, watch.pending = watch.pending, pending
        resumed, watch.resumed = watch.resumed, connection.resumed
        if not (pending and before):
            watch.taking.begin(self._patience.send)
            return False
        moved = max(0, before - pending) if resumed == connection.resumed else RESUMED
        return watch.taking.is_too_slow(moved, self._period, self._patience.rate, self._patience.most)
