"""Connections of callers who have been answered, and stay without asking for more."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ..process import NotRunning

ASK = b"GET / HTTP/1.1\r\nHost: gateway.test\r\n\r\n"


@contextmanager
def idle(port: int, many: int) -> Iterator[None]:
    """So many of them, until the block ends."""
    with ExitStack() as stack:
        for _ in range(many):
            caller = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            caller.sendall(ASK)
            read_answer(caller)
        yield


def read_answer(caller: socket.socket) -> None:
    """Read one whole answer."""
    with caller.makefile("rb") as reader:
        status = reader.readline()
        length = 0
        while (line := reader.readline()) not in (b"\r\n", b""):
            name, _, text = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(text)
        if b" 200 " not in status or len(reader.read(length)) < length:
            raise NotRunning(f"an idle connection was answered {status!r}")
