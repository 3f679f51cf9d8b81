"""Nothing of one request gets into another, whatever a target or a caller does at a bad moment."""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send
from asgi_gateway.call import Call, closed
from asgi_gateway.clock import Clock
from asgi_gateway.config import Upstream
from asgi_gateway.errors import UpstreamError
from asgi_gateway.origin import Origin
from asgi_gateway.transport.connections import Http1
from asgi_gateway.transport.httpx import HttpxTransport
from asgi_gateway.upstream import Target
from tests.peers import peer
from tests.wire.conftest import OK, Behind, Front, Line, Serving

RUDE = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
while True:
    connection, _ = server.accept()
    connection.sendall(sys.argv[1].encode())
    connection.close()
"""
"""A target of its own process that does not wait for a request: inside ours it would be too polite."""


@asynccontextmanager
async def rude(says: str) -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RUDE, says, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(await process.stdout.readline())}"
    finally:
        process.kill()
        await process.wait()


def transports(serving: Serving) -> list[Http1]:
    kept = serving.gateway._kernel.resources._kept.values()
    found = [each.value.transport for each in kept if isinstance(each.value, Target)]
    return [each for each in found if isinstance(each, Http1)]


def active(serving: Serving) -> int:
    """Connections that are neither idle nor gone, and places that somebody holds."""
    return sum(len(each._all) - len(each._idle) + each._connecting for each in transports(serving))


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    "says", ["", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"], ids=["silent", "early"]
)
async def test_a_target_that_closes_when_it_has_accepted_costs_no_place(front: Front, says: str) -> None:
    async with rude(says) as url:
        serving = await front(pool={"max_connections": 2}, targets=[url], ejection=None)
        caller = await serving.caller()
        for _ in range(6):
            # What it says may come before the request went out, or just after: then it is an answer.
            assert (await caller.ask()).status in ((502, 200) if says else (502,))
        assert active(serving) == 0


async def test_what_a_target_says_unasked_is_nobodys_answer(upstream: Behind, front: Front) -> None:
    lines: list[Line] = []

    async def script(line: Line) -> None:
        lines.append(line)
        while True:
            head = await line.head()
            target = head.split(b" ")[1]
            if b"content-length: 6" in head.lower():
                target += b" " + await line.reader.readexactly(6)
            line.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(target), target))

    serving = await front(await upstream(script))
    slow, other = await serving.caller(), await serving.caller()
    assert (await other.ask("/first")).body == b"/first"
    slow.writer.write(b"POST /slow HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 6\r\n\r\n")
    await until(lambda: serving.state.tasks)
    lines[0].say(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 3\r\n\r\nno!")
    (pool,) = transports(serving)
    await until(lambda: not pool._all)
    assert (await other.ask("/other")).body == b"/other"
    slow.writer.write(b"SECRET")
    assert (await slow.answer()).body == b"/slow SECRET"
    assert (await other.ask("/last")).body == b"/last"


async def test_callers_who_only_sent_a_head_hold_no_connection(upstream: Behind, front: Front) -> None:
    up = await upstream()
    serving = await front(up, pool={"max_connections": 1})
    for _ in range(3):
        (await serving.caller()).writer.write(
            b"POST / HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 6\r\n\r\n"
        )
    await until(lambda: len(serving.state.tasks) == 3)
    assert (await (await serving.caller()).ask()).status == 200


async def test_a_connection_is_not_used_again_in_the_middle_of_a_body(upstream: Behind, front: Front) -> None:
    size = 4_000_000

    async def script(line: Line) -> None:
        await line.head()
        line.say(b"HTTP/1.1 401 No\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(size // 100_000):
            line.say(bytes(100_000))
            await line.writer.drain()
        await line.gone()

    up = await upstream(script)
    serving = await front(up)
    caller = await serving.caller()
    caller.writer.write(b"POST / HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 1000\r\n\r\n0123456789")
    await caller.reader.readuntil(b"\r\n\r\n")
    caller.writer.transport.abort()
    await until(lambda: not any(pool._all for pool in transports(serving)))


async def test_a_connection_is_not_used_again_while_bytes_of_a_request_wait_in_it(
    upstream: Behind, front: Front
) -> None:
    async def script(line: Line) -> None:
        await line.head()
        # It reads nothing more, and answers.
        line.reader._transport.pause_reading()  # type: ignore[attr-defined]
        line.say(OK)
        await asyncio.Event().wait()

    up = await upstream(script)
    serving = await front(up)
    caller = await serving.caller()
    body = bytes(8_000_000)
    caller.say("/", method="POST", body=body)
    assert (await caller.answer()).status == 200
    assert [pool._idle for pool in transports(serving)] == [[]]


class Longer:
    """A middleware that makes a body longer, or shorter, than its length says."""

    def __init__(self, app: ASGIApp, add: str = "", drop: int = 0) -> None:
        self.app, self.add, self.drop = app, add.encode(), drop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def changed() -> Any:
            message = await receive()
            body = message.get("body", b"") + self.add
            return {**message, "body": body[: len(body) - self.drop]}

        await self.app(scope, changed, send)


@pytest.mark.parametrize("options", [{"add": "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"}, {"drop": 3}])
async def test_a_component_that_changes_the_length_of_a_body_smuggles_nothing(
    upstream: Behind, front: Front, options: dict[str, Any]
) -> None:
    up = await upstream()
    component = {"middleware": {"cls": "tests.wire.test_transport_faults:Longer", "options": options}}
    serving = await front(up, route={"components": [component]})
    assert (await (await serving.caller()).ask(method="POST", body=b"hello")).status == 500
    assert (await (await serving.caller()).ask("/after")).status == 200
    assert [head.split(b" ")[1] for head in up.heads] == [b"/after"]


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"x-trailer: a\r\n" * 100),
        (b"", b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n" * 100),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;", b"a" * 4096),
        (b"HTTP/1.1 200 OK\r\nx-large: ", b"a" * 4096),
    ],
    ids=["trailers", "interim answers", "chunk extensions", "fields"],
)
async def test_what_is_no_body_is_bounded(upstream: Behind, front: Front, head: bytes, piece: bytes) -> None:
    said = 0

    async def script(line: Line) -> None:
        nonlocal said
        await line.head()
        line.say(head)
        while not line.writer.transport.is_closing():
            line.say(piece)
            said += len(piece)
            await line.writer.drain()
            await asyncio.sleep(0)

    serving = await front(await upstream(script))
    caller = await serving.caller()
    caller.say()
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        assert (await caller.answer()).status == 502
    await until(lambda: active(serving) == 0)
    # What the system holds in between is no more than some buffers.
    assert said < 16 * 1024 * 1024


async def test_stalled_uploads_eject_no_target(upstream: Behind, front: Front) -> None:
    async def hangs(line: Line) -> None:
        await line.head()
        await line.gone()

    ups = [await upstream(hangs), await upstream(hangs)]
    options = {"failures": 1, "duration": "60s", "max_percent": 100}
    serving = await front(*ups, ejection=options, timeout={"total": "50ms"})
    for _ in range(4):
        caller = await serving.caller()
        caller.writer.write(b"POST / HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 1000\r\n\r\nsome")
        assert (await caller.answer()).status == 504
    kept = serving.gateway._kernel.resources._kept.values()
    targets = [each.value for each in kept if isinstance(each.value, Target)]
    assert [(target.failures, target.ejected) for target in targets] == [(0, False)] * 2


async def test_a_busy_target_is_not_an_ill_one(upstream: Behind, front: Front) -> None:
    checks, gate = 0, asyncio.Event()

    async def script(line: Line) -> None:
        nonlocal checks
        while True:
            if b" /health " in await line.head():
                checks += 1
            else:
                await gate.wait()
            line.say(OK)

    health = {"path": "/health", "interval": "10ms", "healthy": 1, "unhealthy": 1, "statuses": [200]}
    serving = await front(await upstream(script), pool={"max_connections": 1}, health=health)
    caller = await serving.caller()
    caller.say()
    await until(lambda: checks > 3)
    kept = serving.gateway._kernel.resources._kept.values()
    assert [each.value.healthy for each in kept if isinstance(each.value, Target)] == [True]
    gate.set()
    assert (await caller.answer()).status == 200


async def test_a_connection_that_stands_is_healthy_enough_where_the_file_says_so(
    upstream: Behind, front: Front
) -> None:
    async def deaf(line: Line) -> None:
        await line.gone()

    up = await upstream(deaf)
    health = {"kind": "tcp", "interval": "10ms", "healthy": 1, "unhealthy": 1}
    serving = await front(up, health=health, targets=[up.url, "http://127.0.0.1:9"])
    kept = serving.gateway._kernel.resources._kept.values()
    states = lambda: [each.value.healthy for each in kept if isinstance(each.value, Target)]  # noqa: E731
    await until(lambda: states() == [True, False] and up.connections > 2)


async def test_a_request_that_ends_its_connection_does_not_end_them_all(
    upstream: Behind, front: Front
) -> None:
    async def script(line: Line) -> None:
        while True:
            if b"/die" in await line.head():
                return
            await asyncio.sleep(0)
            line.say(OK)

    up = await upstream(script)
    serving = await front(up, ejection=None)
    callers = [await serving.caller() for _ in range(20)]
    await asyncio.gather(*(caller.ask() for caller in callers))
    assert (await callers[0].ask("/die", method="DELETE")).status == 502
    assert sum(b"/die" in head for head in up.heads) == 2


async def test_ten_thousand_requests_see_nothing_of_connections_that_a_target_closes_when_it_likes(
    upstream: Behind, front: Front
) -> None:
    posts: list[bytes] = []

    async def script(line: Line) -> None:
        for number in range(1 + len(posts) % 3):
            head = await line.head()
            if head.startswith(b"POST"):
                posts.append(head.split(b" ")[1])
                await line.reader.readexactly(2)
            line.say(OK)
            await asyncio.sleep(0.001 * (number % 2))

    serving = await front(await upstream(script), ejection=None)

    async def ask(first: int) -> list[int]:
        caller, statuses = await serving.caller(), []
        for number in range(first, first + 1250):
            statuses.append((await caller.ask(f"/{number}")).status)
            if number % 10 == 0:
                await caller.ask(f"/{number}", method="POST", body=b"ab")
        return statuses

    statuses = await asyncio.gather(*(ask(2000 * worker) for worker in range(8)))
    assert {status for each in statuses for status in each} == {200}
    assert len(posts) == len(set(posts))


async def test_closing_a_pool_wakes_who_uses_it_and_who_waits_for_it() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def ask() -> str:
        call = Call("u", closed, 0.0, float("inf"), None)
        try:
            await pool.send("GET", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", None, call)
        except UpstreamError as error:
            return error.reason
        return ""

    async with peer(silent) as port, asyncio.timeout(10):
        pool = Http1(Origin.read(f"http://127.0.0.1:{port}"), max_connections=1)
        asked = [asyncio.create_task(ask()) for _ in range(3)]
        await until(lambda: len(pool._waiting) == 2 and pool._all)
        await pool.aclose()
        assert await asyncio.gather(*asked) == ["reset", "no_target", "no_target"]
    assert (pool._connecting, len(pool._all)) == (0, 0)


async def test_answers_that_close_their_connection_leave_no_cyclic_garbage(
    upstream: Behind, front: Front
) -> None:
    async def script(line: Line) -> None:
        await line.head()
        line.say(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")

    caller = await (await front(await upstream(script))).caller()
    await caller.ask()
    gc.collect()
    gc.disable()
    try:
        for _ in range(50):
            await caller.ask()
        # What the test's own servers leave, one for each connection, is theirs.
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        ours = [
            each for each in gc.garbage if type(each).__module__.startswith(("asgi_gateway", "httptools"))
        ]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert ours == []


async def test_cancelled_requests_cost_httpx_no_place_in_its_pool() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.002)
            writer.write(OK)

    async def ask() -> bytes:
        call = Call("u", closed, Clock().monotonic(), float("inf"), None)
        answer = await transport.send("GET", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", None, call)
        try:
            return await answer.read()
        finally:
            answer.close()

    async with peer(slow) as port, asyncio.timeout(20):
        origin = Origin.read(f"http://127.0.0.1:{port}")
        options = Upstream.model_validate({"targets": [str(origin)], "pool": {"max_connections": 3}})
        transport = HttpxTransport.make("httpx", origin, options, Clock())
        for turn in range(150):
            asked = [asyncio.create_task(ask()) for _ in range(6)]
            await asyncio.sleep(0.0004 * (turn % 10))
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        # What was begun is finished, whoever wanted it.
        await until(lambda: not transport._running)
        assert await asyncio.gather(*(ask() for _ in range(6))) == [b"ok"] * 6
        lazy = transport._transport
        inner = lazy._made  # type: ignore[attr-defined]
        assert isinstance(inner, httpx.AsyncHTTPTransport)
        pool: Any = inner._pool
        await until(lambda: all(each.is_idle() for each in pool.connections))
        await transport.aclose()
