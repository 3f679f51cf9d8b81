"""Targets and callers that misbehave, on both event loops."""

import asyncio
import socket
from collections.abc import Callable, Mapping

import pytest
import uvloop

from tests.wire.conftest import Front, Raw, Serving

H = b"HTTP/1.1 200 OK\r\n"


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


Narrow = Callable[..., "asyncio.Future[Serving]"]


@pytest.fixture
def narrow(front: Front) -> Front:
    """A front with one connection, for which nobody waits long: a place that is lost is missed at once."""

    async def narrow(*upstreams: Raw, most: int = 1, **options: object) -> Serving:
        options.setdefault("ejection", None)
        pool = {"max_connections": most, "wait": "300ms", **options.pop("pool", {})}  # type: ignore[dict-item]
        return await front(*upstreams, pool=pool, **options)

    return narrow


class Deaf:
    """A caller with small buffers that reads only when it is told to."""

    def __init__(self, port: int, buffer: int = 4096) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setblocking(False)

    def say(self, path: str = "/", *fields: str, method: str = "GET", body: bytes = b"") -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: gw.test", *fields, "", ""]
        self.socket.sendall("\r\n".join(lines).encode() + body)

    async def read(self, size: int) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self.socket, size)

    def leave(self) -> None:
        self.socket.close()


async def until(true: Callable[[], object]) -> None:
    """Let the loop turn until it is so; the timeout of the server ends what never comes."""
    while not true():
        await asyncio.sleep(0.001)
