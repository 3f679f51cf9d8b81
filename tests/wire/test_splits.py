"""Copies and canaries over real sockets: what reaches each upstream, what a bad one does to the caller."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.wire.conftest import OK, Behind, Front, Line, Raw, Serving


async def mirrored(front: Front, up: Raw, shadow: str, **options: Any) -> Serving:
    upstreams = {"up": {"targets": [up.url]}, "shadow": {"targets": [shadow], "ejection": None}}
    mirror = {"mirror": {"upstream": "shadow", **options}}
    return await front(up, route={"components": [mirror]}, config={"upstreams": upstreams})


async def until(true: Callable[[], object]) -> None:
    while not true():
        await asyncio.sleep(0.001)


def reading(bodies: list[bytes], size: int) -> Any:
    """Answers when it has read so many bytes of a body in one chunk after the other."""

    async def script(line: Line) -> None:
        while True:
            await line.head()
            body = b""
            while chunk := int(await line.reader.readline(), 16):
                body += await line.reader.readexactly(chunk)
                await line.reader.readline()
            await line.reader.readline()
            bodies.append(body)
            line.say(OK)

    return script


async def test_a_copy_is_the_request_with_its_body(upstream: Behind, front: Front) -> None:
    bodies: list[bytes] = []
    up, shadow = [await upstream(reading(bodies, 8)) for _ in range(2)]
    caller = await (await mirrored(front, up, shadow.url, methods=["POST"])).caller()
    caller.say("/a?b", "Transfer-Encoding: chunked", "X-Mirrored: 0", method="POST")
    for piece in (b"5\r\nGET /\r\n", b"3\r\n\r\n\r\r\n", b"0\r\n\r\n"):
        caller.writer.write(piece)
        await asyncio.sleep(0.005)
    assert (await caller.answer()).status == 200
    await until(lambda: len(bodies) == 2)
    assert bodies == [b"GET /\r\n\r"] * 2
    heads = [{*each.heads[0].split(b"\r\n")} for each in (up, shadow)]
    assert heads[1] - heads[0] == {b"host: gw.test-shadow", b"x-mirrored: 1"}
    assert heads[0] - heads[1] == {b"host: gw.test"}


@pytest.mark.parametrize("bad", ["silent", "dead", "resets", "endless", "babbles"])
async def test_a_bad_shadow_is_not_felt(bad: str, upstream: Behind, front: Front) -> None:
    async def script(line: Line) -> None:
        await line.head()
        if bad == "resets":
            line.writer.transport.abort()
        elif bad == "babbles":
            line.say(b"no HTTP\r\n\r\n")
        elif bad == "endless":
            line.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            while True:
                line.say(b"1\r\nx\r\n")
                await line.writer.drain()
                await asyncio.sleep(0.001)
        await line.gone()

    up, shadow = await upstream(), await upstream(script)
    url = "http://127.0.0.1:9" if bad == "dead" else shadow.url
    serving = await mirrored(front, up, url, max_copies=5, timeout="150ms")
    caller, copies = await serving.caller(), serving.gateway._kernel._spawned
    for _ in range(20):
        answer = await caller.ask()
        assert (answer.status, answer.body) == (200, b"ok")
        assert len(copies) <= 5
    assert (len(up.heads), up.connections) == (20, 1)
    # When the copies have come to their end there is room again.
    await until(lambda: not copies)
    before = shadow.connections
    assert (await caller.ask()).status == 200
    if bad != "dead":
        await until(lambda: shadow.connections > before)


async def test_a_caller_who_leaves_does_not_end_the_copy(upstream: Behind, front: Front) -> None:
    release, done = asyncio.Event(), asyncio.Event()

    async def late(line: Line) -> None:
        await line.head()
        await release.wait()
        line.say(OK)
        done.set()
        await line.gone()

    async def silent(line: Line) -> None:
        await line.head()
        await line.gone()

    up, shadow = await upstream(silent), await upstream(late)
    serving = await mirrored(front, up, shadow.url)
    caller = await serving.caller()
    caller.say()
    await until(lambda: up.heads and shadow.heads)
    caller.leave()
    await up.closed.wait()
    assert not shadow.closed.is_set()
    release.set()
    await done.wait()
    await until(lambda: not serving.gateway._kernel._spawned)


async def test_a_canary_that_fails_is_left_and_the_access_is_told(upstream: Behind, front: Front) -> None:
    async def sick(line: Line) -> None:
        while True:
            await line.head()
            line.say(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n")

    up, worse = await upstream(), await upstream(sick)
    upstreams = {"up": {"targets": [up.url]}, "next": {"targets": [worse.url]}}
    rollback = {"minimum": 10}
    canary = {"upstream": "next", "percent": 50, "by": "header:x-user", "rollback": rollback}
    serving = await front(up, route={"components": [{"canary": canary}]}, config={"upstreams": upstreams})
    caller = await serving.caller()
    statuses = [(await caller.ask("/", f"X-User: {number}")).status for number in range(100)]
    assert 10 <= statuses.count(500) <= 40
    assert set(statuses[80:]) == {200}
    assert b"x-variant: canary\r\n" in worse.heads[0]
    assert b"x-variant: stable\r\n" in up.heads[-1]
