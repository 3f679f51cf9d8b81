"""A target in a process of its own that closes what it accepts, with or without a word or a reset."""

import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def slamming(*options: str) -> Iterator[int]:
    """Its port."""
    command = [sys.executable, "-I", __file__, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def serve(talk: bool, reset: bool) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        if talk:
            connection.sendall(b"HTTP/1.1 408 Late\r\ncontent-length: 0\r\n\r\n")
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


if __name__ == "__main__":
    serve("talk" in sys.argv, "reset" in sys.argv)
