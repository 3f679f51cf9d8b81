"""The moment between a request and the turn of the loop in which it is sent."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from asgi_gateway.asgi import Message, Receive
from asgi_gateway.call import Call, closed
from asgi_gateway.origin import Origin
from asgi_gateway.transport.connections import Http1
from asgi_gateway.transport.http1 import Connection
from asgi_gateway.turn import Turn
from tests.peers import peer

Disturb = Callable[[Connection], object]

HEAD = b"%b / HTTP/1.1\r\nhost: a\r\n\r\n"


class Target:
    """Answers each request with how many came before it, on all connections."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"content-length: 4" in head:
                head += await reader.readexactly(4)
            self.requests.append(head)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n%d" % len(self.requests))


@pytest.fixture
async def target() -> AsyncIterator[tuple[Target, Http1]]:
    serving = Target()
    async with peer(serving.serve) as port, asyncio.timeout(20):
        pool = Http1(Origin.read(f"http://127.0.0.1:{port}"))
        yield serving, pool
        await pool.aclose()


def whole(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def ask(pool: Http1, method: bytes = b"GET", receive: Receive | None = None) -> bytes:
    call = Call("u", closed, 0.0, float("inf"), None)
    answer = await pool.send(method.decode(), HEAD % method, receive, call)
    try:
        return answer.take() or await answer.read()
    finally:
        answer.close()


def speaks(connection: Connection) -> None:
    connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad")


@pytest.mark.parametrize("disturb", [speaks, Connection.abort], ids=["speaks", "closes"])
@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_a_request_that_was_not_sent_yet_goes_over_another_connection(
    target: tuple[Target, Http1], disturb: Disturb, method: bytes
) -> None:
    serving, pool = target
    assert await ask(pool) == b"1"
    [connection] = pool._all
    Turn.of(asyncio.get_running_loop()).crowded = True
    asking = asyncio.ensure_future(ask(pool, method, whole(b"body") if method == b"POST" else None))
    await asyncio.sleep(0)
    assert connection.answer is not None
    disturb(connection)
    assert await asking == b"2"
    assert serving.connections == 2
    assert [request.partition(b" ")[0] for request in serving.requests] == [b"GET", method]
