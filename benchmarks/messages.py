"""The load of WebSocket messages, run as a program: so many a second, spread over all connections.

Each is a small text, sent on time and not when the last one came back. Echoes are counted by their size. It
prints the report that benchmarks.load reads.
"""

import argparse
import json
import select
import socket
import statistics
import time
from collections import deque

TEXT = b"x" * 32
MASK = b"\x37\xfa\x21\x3d"
FRAME = bytes((0x81, 0x80 | len(TEXT))) + MASK + bytes(c ^ MASK[i % 4] for i, c in enumerate(TEXT))
"""A whole message of a client (RFC 6455, section 5.2)."""
ECHO = bytes((0x81, len(TEXT))) + TEXT
"""The same from a server."""
BACKLOG = 200
"""Messages under way on one connection, at most: past it the server has fallen behind, and the rate falls."""
PATIENCE = 5.0
"""Seconds for the last echoes."""


class Talk:
    """One WebSocket."""

    def __init__(self, port: int) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lines = [
            "GET / HTTP/1.1",
            f"host: 127.0.0.1:{port}",
            "connection: Upgrade",
            "upgrade: websocket",
            "sec-websocket-version: 13",
            "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
        ]
        self.connection.sendall("\r\n".join([*lines, "", ""]).encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            if not (piece := self.connection.recv(4096)):
                raise ConnectionError("closed in the handshake")
            head += piece
        if b" 101 " not in head.partition(b"\r\n")[0]:
            raise ConnectionError(f"the handshake was refused: {head[:80]!r}")
        self.connection.setblocking(False)
        self.waiting: deque[float] = deque()
        """When each message was sent that has not come back."""
        self._rest = 0

    def say(self) -> None:
        self.waiting.append(time.monotonic())
        self.connection.send(FRAME)

    def hear(self, took: list[float]) -> None:
        """Take what has come; how long it took."""
        data = self.connection.recv(65536)
        if not data:
            raise ConnectionError("closed by the server")
        whole, self._rest = divmod(self._rest + len(data), len(ECHO))
        now = time.monotonic()
        took.extend((now - self.waiting.popleft()) * 1e6 for _ in range(whole))


def talk(port: int, connections: int, rate: float, seconds: float) -> dict[str, float]:
    """Open all connections, talk for `seconds`, and wait for the last echoes."""
    talks = [Talk(port) for _ in range(connections)]
    by_number = {one.connection.fileno(): one for one in talks}
    poll = select.epoll()
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    took: list[float] = []
    said = failed = 0
    begin = time.monotonic()
    end, last = begin + seconds, begin + seconds + PATIENCE
    while (now := time.monotonic()) < last and (now < end or said > len(took)) and not failed:
        try:
            due = int((min(now, end) - begin) * rate)
            while said < due and len((one := talks[said % connections]).waiting) < BACKLOG:
                one.say()
                said += 1
            for number, _ in poll.poll(0.001):
                by_number[number].hear(took)
        except (OSError, IndexError):
            failed = 1
    duration = time.monotonic() - begin
    for one in talks:
        one.connection.close()
    return {
        "requests": len(took),
        "duration_us": duration * 1e6,
        "p50_us": statistics.median(took) if took else 0,
        "p99_us": statistics.quantiles(took, n=100)[-1] if len(took) > 1 else 0,
        "failed": failed + said - len(took),
        "refused": 0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--connections", type=int, required=True)
    options = parser.parse_args()
    print(json.dumps(talk(options.port, options.connections, options.rate, options.seconds)))


if __name__ == "__main__":
    main()
