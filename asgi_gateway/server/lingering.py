"""The only place that closes a connection on which the caller still sends (RFC 9112 9.6)."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from ..readable import readable, untaken

LINGER = 1.0
"""Seconds that a caller has to read the answer before the connection is gone."""


class Lingering(asyncio.Protocol):
    """Throws away what still comes, until the caller closes or the time is over.

    Closing with unread bytes resets the connection, and the caller would lose the answer that explains it.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        lost: Callable[[Exception | None], None],
        seconds: float = LINGER,
    ) -> None:
        self._lost = lost
        if transport.can_write_eof():
            with suppress(OSError):  # the caller has reset the connection, and the loop does not know yet
                transport.write_eof()
        transport.resume_reading()
        self._timer = asyncio.get_running_loop().call_later(seconds, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._lost(exc)


def unread(transport: asyncio.Transport) -> bool:
    """Whether bytes of the caller wait in the system."""
    connection = transport.get_extra_info("socket")
    return connection is not None and readable(connection.fileno())


def unsent(transport: asyncio.Transport) -> int:
    """Bytes that wait for the caller, here and in the system: what tells a slow reader from none."""
    connection = transport.get_extra_info("socket")
    return transport.get_write_buffer_size() + (untaken(connection.fileno()) if connection is not None else 0)
