"""Connections to Redis that go on opening when whoever wanted one has given up."""

import asyncio
from ssl import SSLContext
from typing import Any

from redis.asyncio import BlockingConnectionPool, SSLConnection
from redis.asyncio.connection import AbstractConnection

OPENING = 2.0
"""Seconds that a connection may take to open; nobody waits so long for it."""


class Pool(BlockingConnectionPool):
    """A deadline of some milliseconds is none for opening a connection, above all with TLS: each that was
    begun would be thrown away, and a busy process never have one.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._tls: Any = None
        self._opening: dict[AbstractConnection, asyncio.Task[None]] = {}

    def make_connection(self) -> AbstractConnection:
        connection: AbstractConnection = super().make_connection()  # type: ignore[no-untyped-call]
        if isinstance(connection, SSLConnection):
            # One context for all: to make one takes 20 ms.
            connection.ssl_context = self._tls = self._tls or connection.ssl_context
        return connection

    def tls(self) -> SSLContext | None:
        """Make the TLS context, if one is needed; OSError or ValueError if its files cannot be used."""
        self.make_connection()
        return self._tls.get() if self._tls is not None else None

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        task = self._opening.get(connection)
        if task is None and connection.is_connected:
            await super().ensure_connection(connection)
            return
        if task is None:
            task = asyncio.get_running_loop().create_task(self._open(connection))
            self._opening[connection] = task
            task.add_done_callback(lambda task: self._opened(connection, task))
        await asyncio.shield(task)

    async def _open(self, connection: AbstractConnection) -> None:
        try:
            async with asyncio.timeout(OPENING):
                await super().ensure_connection(connection)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise

    def _opened(self, connection: AbstractConnection, task: "asyncio.Task[None]") -> None:
        del self._opening[connection]
        if not task.cancelled():
            task.exception()  # nobody may be there any more to ask for it

    async def aclose(self) -> None:
        tasks = list(self._opening.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await super().aclose()
