"""The only place that holds an answer on its way over an HTTP/1.1 connection."""

import asyncio
from typing import TYPE_CHECKING

from ..asgi import Header

if TYPE_CHECKING:
    from .http1 import Connection


class Http1Answer:
    """What has arrived of an answer, and who waits for more."""

    __slots__ = (
        "chunked",
        "chunks",
        "complete",
        "connection",
        "failure",
        "headers",
        "status",
        "trailers",
        "waiter",
    )

    def __init__(self, connection: "Connection") -> None:
        self.connection: Connection | None = connection
        """None as soon as the connection is free, or gone."""
        self.status = 0
        self.headers: list[Header] = []
        self.chunked = False
        self.trailers: list[Header] = []
        self.chunks: list[bytes] = []
        self.failure: Exception | None = None
        self.complete = False
        self.waiter: asyncio.Future[None] | None = None

    def take(self) -> bytes:
        chunks = self.chunks
        if not chunks:
            return b""
        self.chunks = []
        if self.connection is not None:
            self.connection.taken()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def read(self) -> bytes:
        while not self.chunks:
            if self.failure is not None:
                raise self.failure
            if self.complete or self.connection is None:
                return b""
            await self.connection.wait(self, "body")
        return self.take()

    def close(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None and connection.answer is self:
            connection.abort()

    def wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def fail(self, error: Exception) -> None:
        if self.failure is None:
            self.failure = error
        self.wake()
