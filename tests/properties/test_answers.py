"""An answer means the same however its bytes are cut into pieces on their way from a target (P07, P13)."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import uvloop
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_gateway.call import Call, closed
from asgi_gateway.clock import Clock
from asgi_gateway.errors import UpstreamError
from asgi_gateway.origin import Origin
from asgi_gateway.transport import Answer
from asgi_gateway.transport.connections import Http1
from asgi_gateway.transport.http1 import Connection
from tests.peers import peer
from tests.properties.messages import Field, Message, answers
from tests.properties.pipes import Cut, Loop, Pieces, Pipe, arrive, cut, cuts, turns, whole
from tests.properties.profile import examples

Factory = Callable[[], asyncio.AbstractEventLoop]
LOOPS: list[Factory] = [asyncio.new_event_loop, uvloop.new_event_loop]


class Line(Http1):
    """One connection at a time, each a pipe."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(Origin.read("http://127.0.0.1:1"), max_connections=1, clock=Clock(loop.time))
        self.pipes: list[Pipe] = []

    async def _open(self, call: Call) -> Connection:
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


def passed_on(message: Message) -> tuple[Field, ...]:
    """Its fields without those of the connection, and those that Connection names."""
    said = [value for name, value in message.headers if name == b"connection"]
    named = {token.strip().lower() for value in said for token in value.split(b",")}
    gone = {b"connection", b"transfer-encoding", *named}
    return tuple(field for field in message.headers if field[0] not in gone)


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


@examples(150)
@given(st.lists(st.tuples(answers(), cuts(), st.booleans()), min_size=1, max_size=3))
def test_a_valid_answer_means_the_same_in_any_pieces(said: list[tuple[Message, Cut, bool]]) -> None:
    async def check(pool: Line) -> None:
        opened = 1
        for message, how, late in said:
            result = await asked(
                pool,
                message.method,
                cut(message.wire, how),
                ends=message.ends,
                late=late,
            )
            assert result == Result(message.status, passed_on(message), message.body, message.trailers)
            assert len(pool.pipes) == opened
            assert pool.pipes[-1].closing is not message.reusable
            opened += not message.reusable
        assert await reuses(pool) is message.reusable

    drive(check)


async def over_a_socket(said: list[tuple[Message, Cut, bool]]) -> None:
    """The same, by way of the system."""
    waiting = [(message, cut(message.wire, how)) for message, how, _ in said]
    served = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        reusable = True
        while reusable and served < len(waiting):
            await reader.readuntil(b"\r\n\r\n")
            message, pieces = waiting[served]
            served, reusable = served + 1, message.reusable
            for data, breathes in pieces:
                writer.write(data)
                await writer.drain()
                if breathes:
                    await turns(3)
        if message.ends:
            writer.write_eof()
        await reader.read()

    gate = asyncio.Event()
    gate.set()
    async with peer(serve) as port, asyncio.timeout(20):
        pool = Http1(Origin.read(f"http://127.0.0.1:{port}"), max_connections=1)
        for message, _, _ in said:
            result = Result()
            await ask(pool, message.method, result, gate)
            assert result == Result(message.status, passed_on(message), message.body, message.trailers)
            assert len(pool._all) == message.reusable
        await pool.aclose()


@pytest.mark.parametrize(
    "factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
@examples(25)
@given(said=st.lists(st.tuples(answers(), cuts(), st.booleans()), min_size=1, max_size=3))
def test_a_valid_answer_means_the_same_over_a_socket(
    factory: Factory, said: list[tuple[Message, Cut, bool]]
) -> None:
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(over_a_socket(said))


# fmt: off
NASTY = [
    b"", b"\0", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b":", b";", b",", b"0", b"9", b"f", b"-1",
    b"\x7f", b"\xff", b"chunked", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"HTTP/1.1 2",
    b"HTTP/1.1 200 OK\r\n\r\n", b"Connection: close\r\n",
]
# fmt: on


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, bytes]:
    """A valid answer with something cut out, put in, or put behind it."""
    message = draw(answers())
    wire = message.wire
    for _ in range(draw(st.integers(1, 2))):
        place, length = draw(st.integers(0, len(wire))), draw(st.sampled_from([0, 0, 1, 2, 5]))
        wire = wire[:place] + draw(st.sampled_from(NASTY)) + wire[place + length :]
    return message.method, wire


@examples(220)
@given(damaged(), cuts(), st.booleans())
def test_a_damaged_answer_fails_the_same_in_any_pieces_and_never_hangs(
    said: tuple[str, bytes], how: Cut, late: bool
) -> None:
    method, wire = said

    def outcome(pieces: Pieces, late: bool) -> tuple[Result, bool]:
        async def check(pool: Line) -> tuple[Result, bool]:
            return await asked(pool, method, pieces, ends=False, late=late), await reuses(pool)

        found: tuple[Result, bool] = drive(check)
        return found

    (one, kept), (other, kept_in_pieces) = outcome(whole(wire), False), outcome(cut(wire, how), late)
    assert other == one
    assert not (one.failure and kept)
    # An empty line behind an answer means nothing, and may come too late to be seen with it.
    assert kept_in_pieces == kept or (kept and wire.endswith((b"\r", b"\n")))


UNASKED = [
    b"H",
    b"HTTP/1.1 2",
    b"HTTP/1.1 200 OK\r\nX: ",
    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    b"x",
]


LAST = Message(
    method="GET",
    wire=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
    status=200,
    headers=((b"transfer-encoding", b"chunked"), (b"connection", b"close")),
    body=b"",
    trailers=(),
    ends=False,
    reusable=False,
)


# The end of the body and what follows come in one piece, when all else was read.
@example(LAST, b"x", (2, [1 - 5.5 / len(LAST.wire)], [True]))
@examples(120)
@given(answers().filter(lambda message: not message.ends), st.sampled_from(UNASKED), cuts())
def test_bytes_behind_an_answer_never_become_part_of_the_next_one(
    message: Message, unasked: bytes, how: Cut
) -> None:
    async def check(pool: Line) -> None:
        result = await asked(pool, message.method, cut(message.wire + unasked, how), ends=False)
        assert result == Result(message.status, passed_on(message), message.body, message.trailers)
        assert not await reuses(pool)

    drive(check)


@pytest.mark.parametrize(
    "field",
    [
        b"gzip",
        b"chunked, gzip",
        b"gzip, chunked",
        b"xchunked",
        b"chunked;q=1",
        b"chunked\t",
        b"identity",
        b"gzip\r\nTransfer-Encoding: chunked",
        b"chunked\r\nTransfer-Encoding: chunked",
    ],
)
@examples(5)
@given(cuts())
def test_a_coding_that_would_be_lost_on_the_way_is_no_answer(field: bytes, how: Cut) -> None:
    wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: %b\r\n\r\n2\r\nok\r\n0\r\n\r\n" % field

    async def check(pool: Line) -> None:
        result = await asked(pool, "GET", cut(wire, how), ends=False)
        assert result == Result(failure="protocol_error in head")
        assert not await reuses(pool)

    drive(check)


@pytest.mark.parametrize("status", [b"000", b"099", b"20", b"2000", b"2x0", b""])
@examples(5)
@given(cuts())
def test_a_status_that_is_none_is_no_answer(status: bytes, how: Cut) -> None:
    wire = b"HTTP/1.1 %b OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" % status

    async def check(pool: Line) -> None:
        result = await asked(pool, "GET", cut(wire, how), ends=False)
        assert result == Result(failure="protocol_error in head")
        assert not await reuses(pool)

    drive(check)


@examples(20)
@given(st.integers(1, 200).flatmap(lambda size: st.tuples(st.just(size), cuts())), st.booleans())
def test_a_head_is_too_large_in_any_pieces(said: tuple[int, Cut], with_body: bool) -> None:
    size, how = said
    fields = b"".join(b"X-%04d: %b\r\n" % (index, b"v" * 990) for index in range(size))
    body = b"b" * 200_000 if with_body else b""
    wire = b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (fields, len(body), body)

    async def check(pool: Line) -> None:
        result = await asked(pool, "GET", cut(wire, how), ends=False)
        if size > 65:
            assert result == Result(failure="protocol_error in head")
        elif size < 65:
            assert (result.status, len(result.headers), result.failure) == (200, size + 1, "")
            assert result.body == body
        assert await reuses(pool) is not result.failure

    drive(check)
