"""The only place that keeps the connections to one target: how many there are, who gets one, and who has to
wait.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ..asgi import Receive
from ..clock import Clock
from ..errors import UpstreamError
from ..exchange import Call
from ..origin import Origin
from .http1 import Connection, Http1Answer, Owner

T = TypeVar("T")

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
        connect: float = 2.0,
        idle: float = 30.0,
        clock: Clock | None = None,
    ) -> None:
        self.origin = origin
        self._tls = tls
        self._server_name = server_name
        self._max_connections = max_connections
        self._max_waiting = max_waiting
        self._wait = wait
        self._keep_alive = keep_alive
        self._connect_time = connect
        self._idle_time = idle
        self._monotonic = (clock or Clock()).monotonic
        self._loop: asyncio.AbstractEventLoop | None = None
        self._forget()

    def _forget(self) -> None:
        self._all: set[Connection] = set()
        self._idle: list[Connection] = []
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._connecting = 0
        self._sweeper: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        active = len(self._all) - len(self._idle)
        return f"<Http1 {self.origin} active={active} idle={len(self._idle)} waiting={len(self._waiting)}>"

    async def send(self, method: str, head: bytes, receive: Receive | None, call: Call) -> Http1Answer:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            # Connections belong to a loop: those of one that is gone are of no use.
            self._forget()
            self._loop = loop
        # Before a connection is taken: a slow caller holds none, and nothing happens to one until it is used.
        first = await receive() if receive is not None else None
        while True:
            connection = self._take() or await self._acquire(call)
            if is_over(connection):
                # Lost in the moment in which it was passed on.
                connection.abort()
                continue
            fresh = connection.used == 0
            try:
                return await connection.request(method, head, first, receive, call)
            except UpstreamError as error:
                # The target closed an idle connection just when the request went out (RFC 9112 9.3.1).
                stale = not fresh and error.reason == "reset" and error.phase == "head"
                if not stale or receive is not None or method not in IDEMPOTENT:
                    raise

    # Who gets a connection

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not is_over(connection):
                return connection
            connection.abort()
        return None

    async def _acquire(self, call: Call) -> Connection:
        if len(self._all) + self._connecting < self._max_connections:
            return await self._connect(call)
        connection = await self._queue(call)
        return connection or await self._connect(call, slot=True)

    async def _queue(self, call: Call) -> Connection | None:
        """Wait for a connection, or for the room to open one (None): that room is taken already."""
        if len(self._waiting) >= self._max_waiting:
            raise UpstreamError(
                "pool_full", "pool", f"{len(self._waiting)} requests wait for {self.origin} already"
            )
        assert self._loop is not None
        waiter = call.waiter = self._loop.create_future()
        call.phase, call.limit = "pool", self._monotonic() + self._wait
        self._waiting.append(waiter)
        try:
            given: Connection | None = await waiter
            return given
        except BaseException:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
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
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._connecting += 1
                waiter.set_result(None)
                return

    def released(self, connection: Connection) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        connection.idle_since = self._monotonic()
        self._idle.append(connection)
        if self._sweeper is None and self._loop is not None:
            self._sweeper = self._loop.call_later(self._keep_alive, self._sweep)

    def lost(self, connection: Connection) -> None:
        if connection in self._all:
            self._all.remove(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self._room()

    def idle_limit(self) -> float:
        return self._monotonic() + self._idle_time

    def _sweep(self) -> None:
        """Close what was idle for too long. One timer while anything is idle, none per request."""
        self._sweeper = None
        oldest = self._monotonic() - self._keep_alive
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
            call.phase, call.limit = "connect", self._monotonic() + self._connect_time
            connection = await interruptible(self._open(), call, Connection.abort)
        except ssl.SSLError as error:
            raise UpstreamError("tls_failed", "connect", f"{self.origin}: {error.reason or error}") from error
        except OSError as error:
            raise UpstreamError("connect_failed", "connect", f"{self.origin}: {sentence(error)}") from error
        else:
            if is_over(connection):
                connection.abort()
                raise UpstreamError("connect_failed", "connect", f"{self.origin}: closed at once")
            self._all.add(connection)
            return connection
        finally:
            self._connecting -= 1
            call.limit = float("inf")
            self._room()

    async def _open(self) -> Connection:
        loop = asyncio.get_running_loop()
        context = self._tls() if self._tls is not None else None
        name = (self._server_name or self.origin.host) if context is not None else None

        def make() -> Connection:
            return Connection(self, loop)

        if self.origin.unix:
            _, connection = await loop.create_unix_connection(
                make, self.origin.unix, ssl=context, server_hostname=name
            )
        else:
            _, connection = await loop.create_connection(
                make, self.origin.host, self.origin.port, ssl=context, server_hostname=name
            )
        return connection

    async def aclose(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        if self._loop is not asyncio.get_running_loop():
            self._forget()
            return
        # Who is connecting goes on, and counts until then.
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_exception(UpstreamError("no_target", "pool", f"{self.origin} is closed"))
        for connection in list(self._all):
            connection.abort()


def is_over(connection: Connection) -> bool:
    return connection.closed or connection.transport.is_closing()


async def interruptible(coroutine: Coroutine[Any, Any, T], call: Call, drop: Callable[[T], None]) -> T:
    """Await something that takes a while, so that the ticker can end it; `drop` gets a result that comes too
    late.
    """
    loop = asyncio.get_running_loop()
    waiter = call.waiter = loop.create_future()
    task = loop.create_task(coroutine)

    def done(task: "asyncio.Task[T]") -> None:
        if not waiter.done():
            waiter.set_result(None)
        elif not task.cancelled() and task.exception() is None:
            drop(task.result())

    task.add_done_callback(done)
    try:
        await waiter
    except BaseException:
        if task.done() and not task.cancelled() and task.exception() is None:
            drop(task.result())
        task.cancel()
        raise
    finally:
        call.waiter = None
    return task.result()


def sentence(error: OSError) -> str:
    """What the system says, without the address that asyncio repeats in its own words."""
    return (
        error.strerror
        if error.errno and error.strerror and "Connect call" not in error.strerror
        else plain(error)
    )


def plain(error: OSError) -> str:
    text = str(error)
    return "connection refused" if "Connect call failed" in text or "Connection refused" in text else text
