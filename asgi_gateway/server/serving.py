"""The only place that runs uvicorn: one gateway, in this process, until a signal ends it."""

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import uvicorn

from ..config import Limits
from ..errors import ConfigError
from . import logs
from .accepting import Accepting
from .holding import hold, let_go
from .protocol import GatewayProtocol, protocol
from .reloading import ConfigFile, refuse, size, warn_about
from .tls import server_context
from .watchdog import Watchdog, deadman, waits
from .websocket import GatewayWebSocket

if TYPE_CHECKING:
    from ..gateway import Gateway

Beside = Callable[["GatewayServer"], Coroutine[Any, Any, None]]
"""Something that runs beside a server, until it stops."""

OBJECTS = 50_000
"""New objects between two searches for cyclic garbage."""
LAST = 1.0
"""Seconds that requests have to end after they were cancelled."""
CLOSING = 5.0
"""Seconds that the gateway and its plugins have to close their things."""
RESERVED = 32
"""Open files for everything that is not a connection: listeners, logs, the event loop."""
LOOK = 0.02
"""Seconds between two looks whether everybody is gone."""

logger = logging.getLogger("asgi_gateway")


def settings(gateway: "Gateway", kind: type[GatewayProtocol]) -> uvicorn.Config:
    """uvicorn's settings, as the `server` section of the file says."""
    server = gateway.config.server
    tls = server.tls
    return uvicorn.Config(
        gateway,
        http=kind,
        ws=GatewayWebSocket,
        ws_max_size=server.limits.message_bytes,
        ws_ping_interval=server.ping,
        interface="asgi3",
        loop=server.loop,
        lifespan="on",
        log_config=None,
        access_log=False,
        # Whose forwarding headers are believed is decided by the gateway.
        proxy_headers=False,
        server_header=False,
        date_header=True,
        timeout_keep_alive=server.keep_alive,  # type: ignore[arg-type]  # any number of seconds will do
        timeout_graceful_shutdown=server.grace,  # type: ignore[arg-type]
        ssl_context_factory=(lambda config, default: server_context(tls)) if tls else None,
    )


def room(limits: Limits) -> int:
    """Connections of callers at one time: half of the open files, as each may need one of a target, too."""
    if limits.connections is not None:
        return limits.connections
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if files == resource.RLIM_INFINITY else max(1, (files - RESERVED) // 2)


class GatewayServer(uvicorn.Server):
    """uvicorn around one gateway. SIGHUP reads the file again, SIGTERM and SIGINT end it, twice at once."""

    def __init__(
        self,
        gateway: "Gateway",
        ready: Callable[[], None],
        beside: Sequence[Beside] = (),
        file: ConfigFile | None = None,
        *,
        alone: bool = True,
    ) -> None:
        """`alone`: there is no supervisor that reads the file, and lets requests drain."""
        self._started_with = gateway.config.server
        self._room = room(self._started_with.limits)
        self._kind = protocol(self._started_with, self._room)
        super().__init__(settings(gateway, self._kind))
        self.gateway = gateway
        self._file = file
        self._alone = alone
        self._accepting: Accepting | None = None
        self._ready = ready
        self._beside = beside
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = asyncio.Event()
        self._ending = False
        self._watchdog: Watchdog | None = None
        self.call_off: Callable[[], None] = lambda: None
        """Called when the end has come by itself."""

    # What signals do

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own would raise the signal again in the end, so that the process did not exit with 0.
        loop = asyncio.get_running_loop()
        drain = self._started_with.drain if self._alone else 0.0
        handlers: dict[int, Callable[[], None]] = {
            signal.SIGINT: self.end,
            signal.SIGTERM: lambda: self.end(drain),
            signal.SIGHUP: self.reread,
            signal.SIGUSR2: lambda: logger.warning("only several workers can be replaced while they serve"),
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        let_go()
        try:
            yield
        finally:
            hold()
            for number in handlers:
                loop.remove_signal_handler(number)

    def end(self, drain: float = 0.0) -> None:
        """Stop after so many seconds in which the readiness probe says no; said twice, at once."""
        if self._alone:
            logs.ends_at_once() if self._ending else logs.ends(drain, self._started_with.grace)
        if self._ending:
            self.force_exit = True
            self.stop()
        elif drain:
            self._ending = True
            self.drain()
            asyncio.get_running_loop().call_later(drain, self.stop)
        else:
            self.stop()

    def drain(self) -> None:
        """Serve on, but tell everybody to go elsewhere next time."""
        self.gateway.ready = False
        self._kind.draining = True

    def stop(self) -> None:
        """Take nothing new; requests in flight have their grace."""
        self._ending = self.should_exit = True
        # Whatever is answered from now on is the last on its connection.
        self._kind.draining = True
        self.gateway.ready = False
        self._stopping.set()

    def reread(self) -> None:
        if self._file is None or not self._alone:
            logger.warning("this process has no file to read again; the first process has")
        else:
            self.spawn(self._reread(self._file))

    async def _reread(self, file: ConfigFile) -> None:
        try:
            await self.reload(await asyncio.to_thread(file.read))
        except ConfigError as error:
            refuse(error)

    async def reload(self, content: bytes) -> None:
        """Serve what the file says now. What is wrong with it is logged, and changes nothing."""
        if await self.bring_in(content) is not None:
            return
        logger.info("the configuration was read again: %s", size(self.gateway))
        warn_about(self._started_with, self.gateway.config.server)
        if self._file is not None:
            await asyncio.to_thread(self._file.accept, content)

    async def bring_in(self, content: bytes) -> ConfigError | None:
        try:
            await self.gateway.reload(content=content)
        except ConfigError as error:
            refuse(error)
            return error
        return None

    # What runs

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something until the server stops."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])
        self._accepting = Accepting(
            sockets or [],
            self._connection,
            lambda: len(self.server_state.connections),
            self._room,
            self.config.ssl,
            self._started_with.limits.head,
        )
        self._accepting.start()
        for work in self._beside:
            self.spawn(work(self))
        # A plain request leaves no cycles behind: to look for them after every 700 objects costs 4 us of 47.
        gc.set_threshold(OBJECTS)
        bound = float("inf") if self._alone else self._started_with.limits.stalled
        self._watchdog = Watchdog(asyncio.get_running_loop(), bound)
        self._watchdog.start()
        self._ready()

    def _connection(self) -> asyncio.Protocol:
        return self._kind(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def main_loop(self) -> None:
        # It sets the date: once a second will do.
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), 1)

    # How it ends

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._close_doors()
        await self._finish()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.lifespan.shutdown(), LAST if self.force_exit else CLOSING)
        if self._watchdog is not None:
            self._watchdog.stop()
        if self._alone:
            logs.has_ended()
        # Closing the event loop waits for all tasks, those too that do not end.
        self.call_off = deadman(LAST, 0)

    async def _close_doors(self) -> None:
        """Take in who has come already, and nobody else."""
        if self._accepting is not None:
            await self._accepting.close(LAST)
        for connection in list(self.server_state.connections):
            connection.shutdown()

    async def _finish(self) -> None:
        """Let requests in flight finish, and cut what is left at the end of their grace."""
        state, loop = self.server_state, asyncio.get_running_loop()
        until = loop.time() + self._started_with.grace
        # Nobody says when a connection goes: to ask is enough in the last seconds of a process.
        while (state.connections or state.tasks) and not self.force_exit and loop.time() < until:  # noqa: ASYNC110
            await asyncio.sleep(LOOK)
        if late := [task for task in state.tasks if not task.done()]:
            logger.warning(
                "%s cut: the grace is over", "1 request is" if len(late) == 1 else f"{len(late)} requests are"
            )
            self.gateway.cut()
            await asyncio.wait(late, timeout=LAST / 2)
            for task in late:
                task.cancel()
            await asyncio.wait(late, timeout=LAST / 2)
            report_stubborn(late)
        for connection in list(state.connections):
            connection.transport.abort()


def report_stubborn(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Name who goes on although it was told to end."""
    for task in tasks:
        if not task.done():
            logger.error("a request does not end although it was cancelled; it waits in %s", waits(task))


def serve(
    gateway: "Gateway",
    sockets: list[socket.socket],
    ready: Callable[[], None],
    beside: Sequence[Beside] = (),
    file: ConfigFile | None = None,
    *,
    alone: bool = True,
) -> int:
    """Serve until a signal ends it; the exit code."""
    server = GatewayServer(gateway, ready, beside, file, alone=alone)
    try:
        server.run(sockets)
    except SystemExit:  # uvicorn's way out of a lifespan that fails
        logger.error("the gateway could not start")
        return 1
    server.call_off()
    return 0
