"""The only place that takes in connections: no more at once than there is room for."""

import asyncio
import logging
import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

AT_ONCE = 16
"""Connections that are taken in one turn of the event loop, so that other workers get their share."""
REFUSED = 8
"""Connections past the bound, or one in `SHARE` of it, that are told so at one time; others wait for that."""
SHARE = 100
PAUSE = 0.02
"""Seconds between two looks whether there is room again."""
SILENCE = 60.0
"""Seconds until it is said again that connections cannot be taken in."""

logger = logging.getLogger("asgi_gateway")


class Accepting:
    """Takes connections from listening sockets.

    The servers of the event loops take in all that wait, before any of them is looked at. asyncio's then logs
    a traceback for each that no file is left for, uvloop's throws them away.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        factory: Callable[[], asyncio.Protocol],
        held: Callable[[], int],
        most: int = sys.maxsize,
        tls: ssl.SSLContext | None = None,
        patience: float = 10.0,
    ) -> None:
        """`held`: how many are open; `most` of them are served. `patience`: seconds for a TLS handshake."""
        self._loop = asyncio.get_running_loop()
        self._listeners = listeners
        self._factory = factory
        self._held = held
        self._bound = most + max(REFUSED, most // SHARE)
        self._tls = tls
        self._patience = patience if tls is not None else None
        self._opening: set[asyncio.Task[None]] = set()
        self._paused: asyncio.TimerHandle | None = None
        self._silent_until = float("-inf")

    def start(self) -> None:
        for listener in self._listeners:
            listener.setblocking(False)
        self._go_on()

    async def close(self, patience: float) -> None:
        """Take in who has come already, within so many seconds, and close the listeners."""
        self._stop()
        for listener in self._listeners:
            # Whoever came in between would be reset.
            while self._accept(listener):
                pass
            listener.close()
        if self._paused is not None:
            self._paused.cancel()
        if self._opening:
            _, late = await asyncio.wait(self._opening, timeout=patience)
            for task in late:
                task.cancel()

    def _go_on(self) -> None:
        self._paused = None
        if self._full():
            self._paused = self._loop.call_later(PAUSE, self._go_on)
            return
        for listener in self._listeners:
            self._loop.add_reader(listener.fileno(), self._take, listener)

    def _stop(self) -> None:
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())

    def _pause(self) -> None:
        self._stop()
        if self._paused is None:
            self._paused = self._loop.call_later(PAUSE, self._go_on)

    def _full(self) -> bool:
        return self._held() + len(self._opening) >= self._bound

    def _take(self, listener: socket.socket) -> None:
        for _ in range(AT_ONCE):
            if not self._accept(listener):
                return

    def _accept(self, listener: socket.socket) -> bool:
        """Take in the next connection; whether there was one, and room for it."""
        if self._full():
            self._pause()
            return False
        try:
            connection, _ = listener.accept()
        except ConnectionAbortedError:
            return True
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            # The socket stays readable: to try again at once would go on for ever.
            self._say(error)
            self._pause()
            return False
        connection.setblocking(False)
        task = self._loop.create_task(self._open(connection))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        return True

    async def _open(self, connection: socket.socket) -> None:
        # A handshake that fails is the caller's business, and its connection is closed.
        with suppress(OSError):
            await self._loop.connect_accepted_socket(
                self._factory, connection, ssl=self._tls, ssl_handshake_timeout=self._patience
            )

    def _say(self, error: OSError) -> None:
        if (now := self._loop.time()) >= self._silent_until:
            self._silent_until = now + SILENCE
            logger.error("no connection can be accepted: %s; they wait", error.strerror or error)
