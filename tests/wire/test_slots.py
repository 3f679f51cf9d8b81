"""Slots of `concurrency` over real sockets: whoever goes, and however, takes none along."""

import asyncio
import base64
import hashlib
import re
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.redis_server import RedisServer
from tests.wire.conftest import Answer, Behind, Caller, Front, Line, Script, Serving, answers

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY = base64.b64encode(bytes(16)).decode()
UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {KEY}",
)
CLOSE = b"\x88\x82\x00\x00\x00\x00\x03\xe8"
"""A close frame with 1000 (RFC 6455 5.5.1), masked with zeros."""


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "memory":
        return {}
    redis: RedisServer = request.getfixturevalue("redis")
    return {"store": {"url": redis.url, "timeout": "5s"}}


async def limited(front: Front, up: Any, store: dict[str, Any], **options: Any) -> Serving:
    config = {**store, "server": {"limits": {"message_bytes": "1KiB"}}}
    route = {"websocket": True, "components": [{"concurrency": {"limit": 1}}]}
    return await front(up, route=route, config=config, **options)


async def is_free(serving: Serving) -> None:
    """Until a handshake is let in again: a slot in a store is given back beside the requests."""
    async with asyncio.timeout(10):
        while (await shake(serving))[0].status == 429:
            await asyncio.sleep(0.01)


async def shake(serving: Serving) -> tuple[Answer, Caller]:
    caller = await serving.caller()
    caller.say("/", *UPGRADE)
    answer = await caller.head()
    if answer.status != 101:
        answer.body = await caller.reader.readexactly(int(answer.all(b"content-length")[0]))
    return answer, caller


def accepting(then: Callable[[Line], Awaitable[None]]) -> Script:
    async def script(line: Line) -> None:
        key = re.search(rb"(?i)sec-websocket-key: (\S+)", await line.head())
        assert key is not None
        accept = base64.b64encode(hashlib.sha1(key[1] + GUID).digest())
        line.say(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-accept: %b\r\n\r\n" % accept
        )
        await then(line)

    return script


async def stays(line: Line) -> None:
    """Until it is asked to close."""
    await line.reader.readuntil(b"\x88")
    line.say(b"\x88\x02\x03\xe8")


async def closes(line: Line) -> None:
    line.say(b"\x88\x02\x03\xe8")
    await line.reader.readuntil(b"\x88")


async def breaks(line: Line) -> None:
    line.say(b"\x8f\x00")
    await line.reader.readuntil(b"\x88")


async def goes(line: Line) -> None:
    line.writer.transport.abort()


async def too_much(line: Line) -> None:
    line.say(b"\x82\x7e\xff\xff" + bytes(65535))
    await line.reader.readuntil(b"\x88")


def reset(caller: Caller) -> None:
    line: socket.socket = caller.writer.get_extra_info("socket")
    if line.fileno() >= 0:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    caller.writer.transport.abort()


ENDS: dict[str, tuple[Callable[[Line], Awaitable[None]], Callable[[Caller], object] | None]] = {
    "the caller closes": (stays, lambda caller: caller.writer.write(CLOSE)),
    "the caller goes": (stays, Caller.leave),
    "the caller resets": (stays, reset),
    "the caller breaks the protocol": (
        stays,
        lambda caller: caller.writer.write(b"\x8f\x80\x00\x00\x00\x00"),
    ),
    "the caller sends too much": (
        stays,
        lambda caller: caller.writer.write(b"\x82\xfe\xff\xff\x00\x00\x00\x00" + bytes(65535)),
    ),
    "the upstream closes": (closes, None),
    "the upstream goes": (goes, None),
    "the upstream breaks the protocol": (breaks, None),
    "the upstream sends too much": (too_much, None),
    "nobody says anything": (stays, None),
}


@pytest.mark.parametrize("how", ENDS)
async def test_a_websocket_gives_its_slot_back_however_it_ends(
    front: Front, upstream: Behind, store: dict[str, Any], how: str
) -> None:
    then, end = ENDS[how]
    idle = "50ms" if how == "nobody says anything" else "10s"
    bounds = {"message_bytes": "1KiB", "idle": idle}
    serving = await limited(front, await upstream(accepting(then)), store, websocket=bounds)
    answer, caller = await shake(serving)
    assert answer.status == 101
    if then is stays and idle == "10s":
        assert (await shake(serving))[0].status == 429
    if end is not None:
        end(caller)
    else:
        await caller.reader.readuntil(b"\x88")
        caller.leave()
    await is_free(serving)


async def nothing(line: Line) -> None:
    await line.head()
    await line.gone()


async def half(line: Line) -> None:
    await line.head()
    line.say(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
    await line.gone()


async def cuts(line: Line) -> None:
    await line.head()
    line.say(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")


async def garbage(line: Line) -> None:
    await line.head()
    line.say(b"garbage\r\n\r\n")


@pytest.mark.parametrize("leave", [Caller.leave, reset])
@pytest.mark.parametrize("first", [nothing, half, cuts, garbage])
async def test_a_request_gives_its_slot_back_whoever_leaves_or_fails(
    front: Front, upstream: Behind, store: dict[str, Any], first: Script, leave: Callable[[Caller], None]
) -> None:
    async def script(line: Line) -> None:
        await (first if line.upstream.connections == 1 else answers)(line)

    up = await upstream(script)
    serving = await limited(front, up, store)
    caller = await serving.caller()
    caller.say("/")
    while not up.heads:
        await asyncio.sleep(0.001)
    if first in (nothing, half):
        assert (await (await serving.caller()).ask("/")).status == 429
    leave(caller)
    other = await serving.caller()
    async with asyncio.timeout(10):
        while (await other.ask("/")).status != 200:
            await asyncio.sleep(0.01)
