"""The load of big bodies, run as a program: a few threads fetch or send one body after the other.

Each has one connection, and finishes what it began: no body is counted in part. Nearly all of its time is in
system calls. It prints the report that benchmarks.load reads.
"""

import argparse
import json
import socket
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

PIECE = 1 << 20
"""Bytes that are taken from a connection at once, at most."""
PATIENCE = 60.0


def receive_answer(connection: socket.socket, room: memoryview) -> tuple[int, int, bytes]:
    """Status, size of the body, and its beginning."""
    seen = 0
    while (end := bytes(room[:seen]).find(b"\r\n\r\n")) < 0:
        if not (count := connection.recv_into(room[seen : seen + 65536])):
            raise ConnectionError("closed before there was an answer")
        seen += count
    head = bytes(room[:end]).decode("latin-1").lower()
    size = int(head.partition("content-length:")[2].split()[0])
    begun = bytes(room[end + 4 : seen])
    got = len(begun)
    while got < size:
        if not (count := connection.recv_into(room)):
            raise ConnectionError("closed within an answer")
        got += count
    return int(head.split()[1]), size, begun


class Worker:
    """One connection."""

    def __init__(self, port: int, path: str, size: int, upload: bool) -> None:
        method, length = ("POST", size) if upload else ("GET", 0)
        self._address = ("127.0.0.1", port)
        lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", f"content-length: {length}", "", ""]
        self._head = "\r\n".join(lines).encode()
        self._body = memoryview(bytes(length))
        self._size, self._upload = size, upload
        self.took: list[float] = []
        """Microseconds of each body."""
        self.failed = self.refused = 0

    def work(self, end: float) -> None:
        """One body after the other until `end`; the last one is finished."""
        room = memoryview(bytearray(PIECE))
        try:
            with socket.create_connection(self._address, PATIENCE) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while (begin := time.monotonic()) < end:
                    connection.sendall(self._head)
                    connection.sendall(self._body)
                    status, size, begun = receive_answer(connection, room)
                    # The upstream says how many bytes of a request, with its head, came to it.
                    whole = int(begun or b"0") >= self._size if self._upload else size == self._size
                    self.refused += status != 200 or not whole
                    self.took.append((time.monotonic() - begin) * 1e6)
        except (OSError, ValueError, IndexError):
            self.failed += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("--bytes", type=int, required=True)
    parser.add_argument("--upload", action="store_true")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--connections", type=int, required=True)
    options = parser.parse_args()
    workers = [
        Worker(options.port, options.path, options.bytes, options.upload) for _ in range(options.connections)
    ]
    begin = time.monotonic()
    with ThreadPoolExecutor(len(workers)) as pool:
        list(pool.map(lambda one: one.work(begin + options.seconds), workers))
    took = [each for one in workers for each in one.took]
    p99 = statistics.quantiles(took, n=100)[-1] if len(took) > 1 else 0
    print(
        json.dumps(
            {
                "requests": len(took),
                "duration_us": (time.monotonic() - begin) * 1e6,
                "p50_us": statistics.median(took) if took else 0,
                "p99_us": p99,
                "failed": sum(one.failed for one in workers),
                "refused": sum(one.refused for one in workers),
            }
        )
    )


if __name__ == "__main__":
    main()
