"""Caches over real sockets: one fetch for many, broken answers, callers who leave in the middle."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from asgi_gateway.gateway import Gateway
from tests.wire.conftest import Behind, Front, Line, served
from tests.wire.test_fallbacks import Told

CACHE: dict[str, Any] = {"components": ["cache"]}
IDEMPOTENT: dict[str, Any] = {"components": ["idempotency"]}
HEAD = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n"
WHOLE = HEAD + b"Content-Length: 5\r\n\r\nhello"

BROKEN = {
    "length": HEAD + b"Content-Length: 10\r\n\r\nhello",
    "chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
    "size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n\r\n",
    "framing": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "head": HEAD,
}


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.001)


async def test_two_hundred_misses_are_one_fetch(upstream: Behind, front: Front) -> None:
    go = asyncio.Event()

    async def script(line: Line) -> None:
        while True:
            await line.head()
            await go.wait()
            line.say(WHOLE)

    raw = await upstream(script)
    one = await front(raw, route=CACHE)
    callers = [await one.caller() for _ in range(200)]
    for caller in callers:
        caller.say("/a")
    await until(lambda: len(one.state.tasks) == 200)
    # One in four leaves while it waits, the one who began among them.
    for caller in callers[::4]:
        caller.leave()
    await until(lambda: len(one.state.tasks) == 150)
    go.set()
    staying = [caller for number, caller in enumerate(callers) if number % 4]
    answers = [await caller.answer() for caller in staying]
    assert {(answer.status, answer.body) for answer in answers} == {(200, b"hello")}
    assert len(raw.heads) == 1
    (hit,) = (await staying[0].ask("/a")).all(b"cache-status")
    assert hit.startswith(b"asgi-gateway; hit; ttl=")
    assert len(raw.heads) == 1


@pytest.mark.parametrize("kind", BROKEN)
async def test_a_broken_answer_looks_whole_to_nobody_and_is_not_kept(
    kind: str, upstream: Behind, front: Front
) -> None:
    broken = True

    async def script(line: Line) -> None:
        while True:
            await line.head()
            if broken:
                line.say(BROKEN[kind])
                return
            line.say(WHOLE)

    raw = await upstream(script)
    one = await front(raw, route=CACHE)
    callers = [await one.caller() for _ in range(3)]
    for caller in callers:
        caller.say("/a")
    for caller in callers:
        try:
            answer = await caller.answer()
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            continue
        assert answer.status == 502
    broken = False
    caller = await one.caller()
    assert (await caller.ask("/a")).body == b"hello"
    assert len(raw.heads) >= 2


async def test_a_hit_leaves_the_connection_as_it_was(upstream: Behind, front: Front) -> None:
    async def script(line: Line) -> None:
        while True:
            await line.head()
            line.say(WHOLE)

    raw = await upstream(script)
    caller = await (await front(raw, route=CACHE)).caller()
    first = await caller.ask("/a")
    for _ in range(3):
        caller.say("/a")
        caller.say("/a", method="HEAD")
        caller.say("/a", "If-None-Match: *")
    for _ in range(3):
        assert (await caller.answer()).body == b"hello"
        head = await caller.answer("HEAD")
        assert head.all(b"content-length") == [b"5"]
        assert (await caller.answer()).status == 304
    hit = await caller.ask("/a")
    for name in (b"date", b"server", b"content-length", b"cache-control", b"age"):
        assert len(hit.all(name)) == (1 if name != b"server" else len(first.all(b"server")))
    assert hit.all(b"date") == first.all(b"date")
    assert len(raw.heads) == 1


async def test_a_payment_is_made_once_though_its_caller_leaves(upstream: Behind, front: Front) -> None:
    go, bodies = asyncio.Event(), list[bytes]()

    async def script(line: Line) -> None:
        while True:
            await line.head()
            bodies.append(await line.reader.readexactly(3))
            await go.wait()
            line.say(b"HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\npaid")

    raw = await upstream(script)
    one = await front(raw, route=IDEMPOTENT)
    first = await one.caller()
    first.say("/pay", 'Idempotency-Key: "k"', method="POST", body=b"100")
    await until(lambda: len(bodies) == 1)
    first.leave()
    await until(lambda: not one.state.tasks)
    caller = await one.caller()
    again = await caller.ask("/pay", 'Idempotency-Key: "k"', method="POST", body=b"100")
    assert again.status == 409
    go.set()
    while again.status == 409:
        again = await caller.ask("/pay", 'Idempotency-Key: "k"', method="POST", body=b"100")
    assert (again.status, again.body, again.all(b"idempotent-replayed")) == (201, b"paid", [b"true"])
    assert bodies == [b"100"]


@pytest.mark.parametrize("said", ["private", "max-age=60"])
async def test_trailers_come_with_what_is_for_one_caller(said: str, upstream: Behind, front: Front) -> None:
    async def script(line: Line) -> None:
        while True:
            await line.head()
            line.say(
                f"HTTP/1.1 200 OK\r\nCache-Control: {said}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            )
            line.say(b"2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n")

    caller = await (await front(await upstream(script), route=CACHE)).caller()
    for _ in range(2):
        caller.say("/a", "TE: trailers", "Connection: te", "Cache-Control: no-cache")
        await caller.head()
        end = b"X-Sum: 1\r\n\r\n" if said == "private" else b"0\r\n\r\n"
        got = await caller.reader.readuntil(b"\r\n\r\n")
        assert got.lower().endswith(end.lower())


async def test_who_waited_for_a_refused_fetch_is_not_refused(upstream: Behind) -> None:
    go, log = asyncio.Event(), Told()

    async def script(line: Line) -> None:
        while True:
            await line.head()
            await go.wait()
            line.say(b"HTTP/1.1 200 OK\r\nCache-Control: private\r\nContent-Length: 2\r\n\r\nok")

    raw = await upstream(script)
    up = {"targets": [raw.url], "components": [{"bulkhead": {"in_flight": 1, "queue": 1, "wait": "50ms"}}]}
    route = {"name": "all", "path": "/*", "upstream": "up", "components": ["remember", "cache"]}
    gateway = Gateway.parse({"upstreams": {"up": up}, "routes": [route]}, plugins=[log])
    async with served(gateway) as one:
        (holds, leads, waits) = [await one.caller() for _ in range(3)]
        holds.say("/holds")
        await until(lambda: len(raw.heads) == 1)
        leads.say("/a")
        waits.say("/a")
        assert (await leads.answer()).status == 503
        go.set()
        assert (await waits.answer()).status == 200
        await holds.answer()
    assert sorted((outcome, cause) for outcome, cause, _ in log.ends) == [
        ("answered", ""),
        ("answered", ""),
        ("refused", "bulkhead_timeout"),
    ]
