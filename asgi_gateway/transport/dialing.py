"""The only place that opens sockets to targets: looks up their names, and tries the addresses in turn."""

import asyncio
import errno
import socket
from collections.abc import Sequence
from typing import Any

from ..origin import Origin
from ..unsent import bound

DELAY = 0.25
"""Seconds until the next address is tried beside the one that does not answer (RFC 8305 5)."""

Address = tuple[Any, ...]


async def dial(origin: Origin) -> socket.socket:
    """A connected socket. OSError; UnicodeError for a name that is none. Names are looked up each time."""
    if origin.unix:
        return await connect(socket.AF_UNIX, origin.unix)
    if (family := family_of(origin.host)) is not None:
        return await connect(family, (origin.host, origin.port))
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    addresses = in_turn([(family, place) for family, _, _, _, place in found])
    return await (connect(*addresses[0]) if len(addresses) == 1 else race(addresses))


async def race(addresses: Sequence[tuple[int, Address]]) -> socket.socket:
    """The first socket that stands; the OSError of the last address if none does."""
    failure = OSError(errno.EHOSTUNREACH, "no address")
    running: set[asyncio.Task[socket.socket]] = set()
    left = list(addresses)
    try:
        while left or running:
            if left:
                running.add(asyncio.create_task(connect(*left.pop(0))))
            delay = DELAY if left else None
            done, _ = await asyncio.wait(running, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                running.discard(task)
                error = task.exception()
                if error is None:
                    return task.result()
                failure = error if isinstance(error, OSError) else failure
    finally:
        for task in running:
            task.add_done_callback(close_late)
            task.cancel()
    raise failure


def close_late(task: "asyncio.Task[socket.socket]") -> None:
    """Another address was faster."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def connect(family: int, place: Any) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)
        bound(opened)
        await asyncio.get_running_loop().sock_connect(opened, place)
    except BaseException:
        opened.close()
        raise
    return opened


def family_of(host: str) -> int | None:
    """The kind of an address; None for a name."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.inet_pton(family, host)
    except (OSError, UnicodeError):
        return None
    return family


def in_turn(found: list[tuple[int, Address]]) -> list[tuple[int, Address]]:
    """The addresses with their families taking turns, so that one that leads nowhere costs one delay."""
    first = [each for each in found if each[0] == found[0][0]]
    other = [each for each in found if each[0] != found[0][0]]
    mixed = [each for pair in zip(first, other, strict=False) for each in pair]
    short = min(len(first), len(other))
    return [*mixed, *first[short:], *other[short:]]
