"""An answer means the same however its bytes are cut into pieces on their way from a target (P07, P13)."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from asgi_gateway.clock import Clock
from asgi_gateway.errors import UpstreamError
from asgi_gateway.exchange import Call, closed
from asgi_gateway.origin import Origin
from asgi_gateway.transport import Answer
from asgi_gateway.transport.connections import Http1
from asgi_gateway.transport.http1 import Connection
from tests.properties.messages import Field, Message, answers
from tests.properties.pipes import Loop, Pieces, Pipe, arrive, cut, cuts, turns, whole
from tests.properties.profile import examples


class Line(Http1):
    """One connection at a time, each a pipe."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(Origin.read("http://127.0.0.1:1"), max_connections=1, clock=Clock(loop.time))
        self.pipes: list[Pipe] = []

    async def _open(self) -> Connection:
        loop = asyncio.get_running_loop()
        connection = Connection(self, loop)
        self.pipes.append(Pipe(loop, connection))
        return connection


@dataclass
class Result:
    """What became of one request."""

    status: int = 0
    headers: Sequence[Field] = ()
    body: bytes = b""
    trailers: Sequence[Field] = ()
    failure: str = ""


async def read(answer: Answer, result: Result) -> None:
    """As the proxy does."""
    complete = answer.complete
    result.body += answer.take()
    while not complete:
        result.body += await answer.read()
        complete = answer.complete
        if complete:
            result.body += answer.take()
    result.trailers = tuple(answer.trailers)


async def ask(pool: Http1, method: str, result: Result, gate: asyncio.Event) -> None:
    head = b"%b / HTTP/1.1\r\nhost: a\r\n\r\n" % method.encode()
    try:
        answer = await pool.send(method, head, None, Call("u", closed, 0.0, float("inf"), None))
        try:
            result.status, result.headers = answer.status, tuple(answer.headers)
            await gate.wait()
            await read(answer, result)
        finally:
            answer.close()
    except UpstreamError as error:
        result.failure = f"{error.reason} in {error.phase}"


async def asked(pool: Line, method: str, pieces: Pieces, *, ends: bool, late: bool = False) -> Result:
    """One request, and the bytes that come back for it; `ends`: then the connection does."""
    result, gate = Result(), asyncio.Event()
    task = asyncio.ensure_future(ask(pool, method, result, gate))
    await turns()
    pipe = pool.pipes[-1]
    assert pipe.written.endswith(b"\r\n\r\n")
    arriving = asyncio.ensure_future(arrive(pipe, pieces))
    if late:
        await turns()
    gate.set()
    while not arriving.done():
        await asyncio.sleep(0)
    await turns()
    if ends or not task.done():
        assert not pipe.paused
        pipe.leave()
        await turns()
    assert task.done(), "the request hangs"
    await task
    return result


async def reuses(pool: Line) -> bool:
    """Whether the next request goes over the same connection; it is answered in any case."""
    await turns()
    before = len(pool.pipes)
    good = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext"
    result = await asked(pool, "GET", whole(good), ends=False)
    assert (result.status, result.body, result.failure) == (200, b"next", "")
    assert sum(not pipe.closing for pipe in pool.pipes) == 1
    return len(pool.pipes) == before


def drive(coroutine):  # type: ignore[no-untyped-def]
    loop = Loop()
    try:
        return loop.run_until_complete(coroutine(Line(loop)))
    finally:
        assert not loop.errors
        loop.close()


@examples(200)
@given(st.lists(st.tuples(answers(), cuts(), st.booleans()), min_size=1, max_size=3))
def test_a_valid_answer_means_the_same_in_any_pieces(said: list[tuple[Message, object, bool]]) -> None:
    async def check(pool: Line) -> None:
        opened = 1
        for message, how, late in said:
            result = await asked(
                pool,
                message.method,
                cut(message.wire, how),
                ends=message.ends,
                late=late,  # type: ignore[arg-type]
            )
            assert result == Result(message.status, message.headers, message.body, message.trailers)
            assert len(pool.pipes) == opened
            assert pool.pipes[-1].closing is not message.reusable
            opened += not message.reusable
        assert await reuses(pool) is message.reusable

    drive(check)
