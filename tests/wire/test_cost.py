"""What a request costs, in calls of functions: a guard against what makes each of them dearer (no timing).

The bounds have some room. Who goes past one looks first whether the work is needed for each request; if it
is, the bound goes up in the same commit, whose message says why.
"""

import socket
import sys
import threading
from asyncio import to_thread
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import asgi_gateway
import asgi_gateway_plugins
from tests.wire.conftest import Behind, Front, Line

BODY = b"x" * 1024
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: text/plain\r\n"
    b'Content-Length: 1024\r\nConnection: keep-alive\r\nETag: "abc"\r\nCache-Control: max-age=60\r\n\r\n'
    + BODY
)
REQUEST = b"GET /a/b HTTP/1.1\r\nHost: gw.test\r\nUser-Agent: wrk\r\nAccept: */*\r\nX-Api-Key: k\r\n\r\n"
OURS = tuple(str(Path(package.__file__ or "").parent) for package in (asgi_gateway, asgi_gateway_plugins))
WARM, COUNTED = 20, 100

FOUR = [
    {"access_log": {"file": "/dev/null"}},
    "request_id",
    {"key_auth": {}},
    {"rate_limit": {"limit": "1000000/second", "by": "consumer"}},
]


class Counting:
    """Calls that our own code makes or is, in this thread: of functions in Python, and of functions in C."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self._code: dict[Any, bool] = {}

    def _ours(self, frame: FrameType) -> bool:
        code = frame.f_code
        if (known := self._code.get(code)) is None:
            known = self._code[code] = code.co_filename.startswith(OURS)
        return known

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event in ("call", "c_call") and self._ours(frame):
            self.calls[event] += 1

    def __enter__(self) -> "Counting":
        sys.setprofile(self)
        return self

    def __exit__(self, *exc: object) -> None:
        sys.setprofile(None)


def ask(connection: socket.socket, times: int) -> None:
    for _ in range(times):
        connection.sendall(REQUEST)
        got = b""
        while not got.endswith(BODY):
            piece = connection.recv(65536)
            assert piece, got
            got += piece
        assert got.startswith(b"HTTP/1.1 200 OK\r\n"), got


async def answering(line: Line) -> None:
    while True:
        await line.head()
        line.say(ANSWER)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="later Pythons count comprehensions in another way")
@pytest.mark.parametrize(
    ("components", "most"),
    [
        pytest.param([], 245, id="plain"),
        pytest.param(FOUR, 305, id="four components"),
        pytest.param([{"cache": {}}], 150, id="cache hit"),
    ],
)
async def test_a_request_takes_no_more_calls_than_it_did(
    components: list[Any], most: int, upstream: Behind, front: Front
) -> None:
    consumers = [{"name": "ann", "keys": ["k"]}]
    serving = await front(
        await upstream(answering), route={"components": components}, config={"consumers": consumers}
    )
    with socket.create_connection(("127.0.0.1", serving.port)) as connection:
        await to_thread(ask, connection, WARM)
        assert threading.current_thread() is threading.main_thread()
        with Counting() as counting:
            await to_thread(ask, connection, COUNTED)
    each = sum(counting.calls.values()) / COUNTED
    print(f"{each:.1f} calls for each request: {dict(counting.calls)}")
    assert most / 2 < each <= most
