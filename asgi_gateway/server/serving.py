"""The only place that runs uvicorn: one gateway, in this process, until a signal ends it."""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import uvicorn

from .protocol import protocol
from .reloading import reload, warn_about
from .tls import server_context
from .websocket import GatewayWebSocket

if TYPE_CHECKING:
    from ..gateway import Gateway

Beside = Callable[["GatewayServer"], Coroutine[Any, Any, None]]
"""Something that runs beside a server, until it stops."""

OBJECTS = 50_000
"""New objects between two searches for cyclic garbage."""
FORCED = 1.0
"""Seconds that the gateway has to close its things when it was told twice to end."""

logger = logging.getLogger("asgi_gateway")


def settings(gateway: "Gateway") -> uvicorn.Config:
    """uvicorn's settings, as the `server` section of the file says."""
    server = gateway.config.server
    tls = server.tls
    return uvicorn.Config(
        gateway,
        http=protocol(server.limits),
        ws=GatewayWebSocket,
        ws_max_size=server.limits.message_bytes,
        ws_ping_interval=server.ping,
        interface="asgi3",
        lifespan="on",
        log_config=None,
        access_log=False,
        # Whose forwarding headers are believed is decided by the gateway.
        proxy_headers=False,
        server_header=False,
        date_header=True,
        backlog=server.limits.backlog,
        timeout_keep_alive=server.keep_alive,  # type: ignore[arg-type]  # any number of seconds will do
        timeout_graceful_shutdown=server.grace,  # type: ignore[arg-type]
        ssl_context_factory=(lambda config, default: server_context(tls)) if tls else None,
    )


class GatewayServer(uvicorn.Server):
    """uvicorn around one gateway. SIGHUP reads the file again, SIGTERM and SIGINT end it, twice at once."""

    def __init__(
        self, gateway: "Gateway", ready: Callable[[], None], beside: Sequence[Beside] = (), alone: bool = True
    ) -> None:
        super().__init__(settings(gateway))
        self.gateway = gateway
        self._started_with = gateway.config.server if alone else None
        self._ready = ready
        self._beside = beside
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
        self.gateway.ready = False
        self._stopping.set()

    async def reload(self) -> None:
        await reload(self.gateway)
        if self._started_with is not None:
            warn_about(self._started_with, self.gateway.config.server)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something until the server stops."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own would raise the signal again in the end, so that the process did not exit with 0.
        loop = asyncio.get_running_loop()
        handlers: dict[int, Callable[[], None]] = {
            signal.SIGINT: self.stop,
            signal.SIGTERM: self.stop,
            signal.SIGHUP: lambda: self.spawn(self.reload()),
            signal.SIGUSR2: lambda: logger.warning("only several workers can be replaced while they serve"),
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for work in self._beside:
            self.spawn(work(self))
        # A plain request leaves no cycles behind: to look for them after every 700 objects costs 4 us of 47.
        gc.set_threshold(OBJECTS)
        self._ready()

    async def main_loop(self) -> None:
        # It sets the date: once a second will do.
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), 1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await super().shutdown(sockets)
        if self.force_exit:  # uvicorn waits for nobody then, and closes nothing
            for request in list(self.server_state.tasks):
                request.cancel()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.lifespan.shutdown(), FORCED)


def serve(
    gateway: "Gateway",
    sockets: list[socket.socket],
    ready: Callable[[], None],
    beside: Sequence[Beside] = (),
    alone: bool = True,
) -> int:
    """Serve until a signal ends it; the exit code. `alone`: no supervisor warns about changes."""
    try:
        GatewayServer(gateway, ready, beside, alone).run(sockets)
    except SystemExit:  # uvicorn's way out of a lifespan that fails
        logger.error("the gateway could not start")
        return 1
    return 0
