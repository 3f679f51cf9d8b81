"""The only place that keeps the connections to one target: how many there are, who gets one, and who has to
wait.
"""

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from ..asgi import Receive
from ..call import Call
from ..clock import Clock
from ..errors import UpstreamError
from ..origin import Origin
from .answer import Http1Answer
from .connecting import failed, interruptible
from .dialing import dial
from .http1 import FOREVER, Connection, Owner
from .upload import Upload

RESTED = 0.05
"""Seconds of idleness after which a connection is looked at before it serves again."""
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})  # RFC 9110 9.2.2


class Http1(Owner):
    """HTTP/1.1 to one target. A stack of idle connections, a bound on all, a fair and bounded queue."""

    def __init__(
        self,
        origin: Origin,
        *,
        tls: Callable[[], ssl.SSLContext] | None = None,
        server_name: str = "",
        max_connections: int = 200,
        max_waiting: int = 1000,
        wait: float = 1.0,
        keep_alive: float = 30.0,
        max_age: float = FOREVER,
        max_requests: int | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Times in seconds. `max_age`, `max_requests`: what a connection may reach before it is replaced."""
        self.origin = origin
        self._tls = tls
        self._server_name = server_name
        self._max_connections = max_connections
        self._max_waiting = max_waiting
        self._wait = wait
        self._keep_alive = keep_alive
        self._max_age = max_age
        self._max_requests = max_requests
        self.now = (clock or Clock()).monotonic
        self._loop: asyncio.AbstractEventLoop | None = None
        self._forget()

    def _forget(self) -> None:
        self._all: set[Connection] = set()
        self._idle: list[Connection] = []
        self._waiting: OrderedDict[asyncio.Future[Connection | None], None] = OrderedDict()
        """In the order in which they came. Any of them may leave, many at one time."""
        self._connecting = 0
        self._sweeper: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        active = len(self._all) - len(self._idle)
        return f"<Http1 {self.origin} active={active} idle={len(self._idle)} waiting={len(self._waiting)}>"

    async def send(self, method: str, head: bytes, receive: Receive | None, call: Call) -> Http1Answer:
        loop = call.task.get_loop() if call.task is not None else asyncio.get_running_loop()
        if loop is not self._loop:
            # Connections belong to a loop: those of one that is gone are of no use.
            self._forget()
            self._loop = loop
        # Before a connection is taken: a slow caller holds none, and nothing happens to one until it is used.
        upload = Upload(head, await receive()) if receive is not None else None
        connection = self._take() or await self._acquire(call)
        fresh = connection.used == 0
        try:
            return await connection.request(method, head, upload, receive, call)
        except UpstreamError as error:
            # The target closed an idle connection just when the request went out (RFC 9112 9.3.1), or before
            # that: then nobody has seen it, whatever it asks for.
            stale = not fresh and error.reason == "reset" and error.phase == "head"
            if not stale or (error.sent and (receive is not None or method not in IDEMPOTENT)):
                raise
        # Once: a request that ends each connection that it is sent over would end them all.
        connection = await self._acquire(call, fresh=True)
        return await connection.request(method, head, upload, receive, call)

    async def reach(self, call: Call) -> None:
        """Open a connection, and close it. UpstreamError."""
        if (loop := asyncio.get_running_loop()) is not self._loop:
            self._forget()
            self._loop = loop
        (await self._connect(call)).abort()

    # Who gets a connection

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            # An end that nobody has read yet, or an answer that nobody asked for and that somebody would get.
            # To ask costs 2 us of 60: under load, where connections rest for less, the loop has just looked.
            rested = self.now() - connection.idle_since > RESTED
            over = connection.closed or connection.transport.is_closing()
            if not (over or (rested and connection.disturbed())):
                return connection
            connection.abort()
        return None

    async def _acquire(self, call: Call, *, fresh: bool = False) -> Connection:
        """A new connection; without room for it the next that is free, or if `fresh`, one in its place."""
        while True:
            if self._idle and len(self._all) + self._connecting >= self._max_connections:
                self._idle[0].abort()
            if len(self._all) + self._connecting < self._max_connections:
                return await self._connect(call)
            connection = await self._queue(call)
            if connection is None:
                return await self._connect(call, slot=True)
            if connection.closed:
                # Lost in the moment in which it was passed on.
                continue
            if not (fresh or is_over(connection) or connection.disturbed()):
                return connection
            self._connecting += 1
            connection.abort()
            return await self._connect(call, slot=True)

    async def _queue(self, call: Call) -> Connection | None:
        """Wait for a connection, or for the room to open one (None): that room is taken already."""
        if len(self._waiting) >= self._max_waiting:
            raise UpstreamError(
                "pool_full", "pool", f"{len(self._waiting)} requests wait for {self.origin} already"
            )
        assert self._loop is not None
        waiter = call.waiter = self._loop.create_future()
        call.phase, call.limit = "pool", self.now() + self._wait
        self._waiting[waiter] = None
        try:
            given: Connection | None = await waiter
            return given
        except BaseException:
            if waiter in self._waiting:
                del self._waiting[waiter]
            elif waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                # It was given something in the very moment in which it gave up: pass it on.
                self._pass_on(waiter.result())
            raise
        finally:
            call.waiter, call.limit = None, float("inf")

    def _pass_on(self, connection: Connection | None) -> None:
        if connection is None:
            self._connecting -= 1
            self._room()
        elif not connection.closed:
            self.released(connection)

    def _room(self) -> None:
        """There may be room for one more connection: the first who waits may open it."""
        while self._waiting and len(self._all) + self._connecting < self._max_connections:
            waiter, _ = self._waiting.popitem(last=False)
            if not waiter.done():
                self._connecting += 1
                waiter.set_result(None)
                return

    def released(self, connection: Connection) -> None:
        now = self.now()
        if self._worn(connection, now):
            connection.abort()
            return
        while self._waiting:
            waiter, _ = self._waiting.popitem(last=False)
            if not waiter.done():
                waiter.set_result(connection)
                return
        connection.idle_since = now
        self._idle.append(connection)
        if self._sweeper is None and self._loop is not None:
            self._sweeper = self._loop.call_later(self._keep_alive, self._sweep)

    def _worn(self, connection: Connection, now: float) -> bool:
        """Whether it served long enough: a new one goes where the name of the target leads by then."""
        if self._max_requests is not None and connection.used >= self._max_requests:
            return True
        return self._max_age < FOREVER and now - connection.opened >= self._max_age

    def lost(self, connection: Connection) -> None:
        if connection in self._all:
            self._all.remove(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self._room()

    def _sweep(self) -> None:
        """Close what was idle for too long. One timer while anything is idle, none per request."""
        self._sweeper = None
        oldest = self.now() - self._keep_alive
        for connection in [idle for idle in self._idle if idle.idle_since <= oldest]:
            connection.abort()
        if self._idle and self._loop is not None:
            delay = max(0.05, self._idle[0].idle_since - oldest)
            self._sweeper = self._loop.call_later(delay, self._sweep)

    # Opening one

    async def _connect(self, call: Call, *, slot: bool = False) -> Connection:
        if not slot:
            self._connecting += 1
        try:
            connection = await interruptible(self._open(call), call, Connection.abort)
        except ssl.SSLError as error:
            raise UpstreamError("tls_failed", "tls", f"{self.origin}: {error.reason or error}") from error
        except (OSError, UnicodeError) as error:
            raise failed(error, call.phase, self.origin) from error
        else:
            connection.opened = self.now()
            # Who agreed on TLS may have more to say of that; before it nobody speaks until it is asked.
            if is_over(connection) or (self._tls is None and connection.disturbed()):
                connection.abort()
                raise UpstreamError("connect_failed", "connect", f"{self.origin}: closed or spoke at once")
            self._all.add(connection)
            return connection
        finally:
            self._connecting -= 1
            call.limit = FOREVER
            self._room()

    async def _open(self, call: Call) -> Connection:
        loop = asyncio.get_running_loop()
        call.phase, call.limit = "connect", self.now() + call.timeouts.connect
        socket = await dial(self.origin)
        secure: dict[str, Any] = {}
        if self._tls is not None:
            call.phase, call.limit = "tls", self.now() + call.timeouts.tls
            secure = {"ssl": self._tls(), "server_hostname": self._server_name or self.origin.host}
        connect = loop.create_unix_connection if self.origin.unix else loop.create_connection
        try:
            _, connection = await connect(lambda: Connection(self, loop), sock=socket, **secure)
        except BaseException:
            socket.close()
            raise
        return connection

    async def aclose(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        if self._loop is not asyncio.get_running_loop():
            self._forget()
            return
        # Who is connecting goes on, and counts until then.
        waiting, self._waiting = self._waiting, OrderedDict()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_exception(UpstreamError("no_target", "pool", f"{self.origin} is closed"))
        for connection in list(self._all):
            connection.abort()


def is_over(connection: Connection) -> bool:
    return connection.closed or connection.transport.is_closing()
