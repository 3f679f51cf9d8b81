"""Servers of tests that speak raw bytes, and leave no connection behind."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from socket import socket

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def peer(
    serve: Serve,
    port: int = 0,
    *,
    host: str = "127.0.0.1",
    path: Path | None = None,
    sock: socket | None = None,
    tls: ssl.SSLContext | None = None,
    limit: int = 65536,
) -> AsyncIterator[int]:
    """Serve each connection until `serve` returns, the other side leaves, or this ends. Yields the port."""
    open_now: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
    over = False

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            open_now.pop(writer, None)

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if over:
            writer.transport.abort()
        else:
            open_now[writer] = asyncio.ensure_future(one(reader, writer))

    if path is not None:
        server = await asyncio.start_unix_server(accept, path, limit=limit, ssl=tls)
    elif sock is not None:
        server = await asyncio.start_server(accept, sock=sock, limit=limit, ssl=tls)
    else:
        server = await asyncio.start_server(accept, host, port, limit=limit, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1] if path is None else 0
    finally:
        over = True
        server.close()
        # A task that is cancelled before its first step closes nothing: the connections are ended here.
        ending = dict(open_now)
        for writer, task in ending.items():
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*ending.values(), return_exceptions=True)
        await server.wait_closed()
