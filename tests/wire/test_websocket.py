"""WebSockets through a gateway, between a raw caller and a raw target that say each frame themselves."""

import asyncio
import base64
import gc
import hashlib
import json
import logging
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from asgi_gateway.config import GatewayConfig
from asgi_gateway.server.websocket import GatewayWebSocket
from asgi_gateway.websocket.handshake import Remote

from . import chat
from .conftest import Behind, Caller, Front, Line, Raw, Serving

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {KEY}",
)
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
ROUTE: dict[str, Any] = {"websocket": True}
Frame = tuple[int, bytes]


def frame(opcode: int, payload: bytes = b"", *, mask: bool = False, fin: bool = True) -> bytes:
    bit, length = 0x80 if mask else 0, len(payload)
    first = bytes((opcode | (0x80 if fin else 0),))
    if length < 126:
        head = first + bytes((bit | length,))
    elif length < 65536:
        head = first + bytes((bit | 126,)) + struct.pack("!H", length)
    else:
        head = first + bytes((bit | 127,)) + struct.pack("!Q", length)
    return head + (bytes(4) if mask else b"") + payload


def closing(code: int, reason: str = "") -> bytes:
    return struct.pack("!H", code) + reason.encode()


async def read(reader: asyncio.StreamReader) -> Frame:
    """The next frame, unmasked."""
    first, second = await reader.readexactly(2)
    length = second & 0x7F
    if length == 126:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
    elif length == 127:
        (length,) = struct.unpack("!Q", await reader.readexactly(8))
    mask = await reader.readexactly(4) if second & 0x80 else bytes(4)
    payload = await reader.readexactly(length)
    if mask != bytes(4):
        payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return first & 0x0F, payload


async def accept(line: Line, *fields: bytes) -> None:
    head = await line.head()
    key = next(row for row in head.split(b"\r\n") if row.lower().startswith(b"sec-websocket-key: "))[19:]
    answer = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    rows = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade", *fields]
    line.say(b"\r\n".join([*rows, b"Sec-WebSocket-Accept: " + answer, b"", b""]))


class Target:
    """A target that accepts, then does what a test says."""

    def __init__(self, script: Callable[[Line], Awaitable[None]] | None = None) -> None:
        self.got: asyncio.Queue[Frame] = asyncio.Queue()
        self.line: asyncio.Future[Line] = asyncio.get_running_loop().create_future()
        self._script = script

    async def __call__(self, line: Line) -> None:
        await accept(line)
        self.line.set_result(line)
        try:
            await (self._script or self.listen)(line)
        finally:
            line.upstream.closed.set()

    async def listen(self, line: Line) -> None:
        """Take every frame; answer a close."""
        while True:
            opcode, payload = await read(line.reader)
            self.got.put_nowait((opcode, payload))
            if opcode == CLOSE:
                line.say(frame(CLOSE, payload))
                return


async def opened(serving: Serving, path: str = "/", *fields: str) -> Caller:
    caller = await serving.caller()
    caller.say(path, *HANDSHAKE, *fields)
    answer = await caller.head()
    assert answer.status == 101, await caller.reader.read(1000)
    return caller


async def say(caller: Caller, opcode: int, payload: bytes = b"", *, fin: bool = True) -> None:
    caller.writer.write(frame(opcode, payload, mask=True, fin=fin))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
async def nothing_in_the_log(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    yield
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


# Messages


async def test_fragments_become_one_message_also_with_pings_between(upstream: Behind, front: Front) -> None:
    target = Target()
    caller = await opened(await front(await upstream(target), route=ROUTE))
    await say(caller, TEXT, "ü".encode()[:1], fin=False)
    await say(caller, PING, b"there?")
    await say(caller, CONT, b"", fin=False)
    await say(caller, CONT, "ü".encode()[1:] + b"ber")
    assert await read(caller.reader) == (PONG, b"there?")
    assert await target.got.get() == (TEXT, "über".encode())
    line = await target.line
    line.say(frame(BINARY, b"a", fin=False) + frame(PING, b"you?") + frame(CONT, b"b"))
    assert await target.got.get() == (PONG, b"you?")
    assert await read(caller.reader) == (BINARY, b"ab")


async def test_frames_that_come_in_pieces_or_many_at_once_are_the_same(
    upstream: Behind, front: Front
) -> None:
    target = Target()
    caller = await opened(await front(await upstream(target), route=ROUTE))
    payloads = [b"", b"a", b"b" * 125, b"c" * 126, b"d" * 65536, b"e" * 300_000]
    data = b"".join(frame(BINARY, payload, mask=True) for payload in payloads)
    caller.writer.write(data)
    for payload in payloads:
        assert await target.got.get() == (BINARY, payload)
    for at in range(200):
        caller.writer.write(data[at : at + 1])
        await asyncio.sleep(0)
    caller.writer.write(data[200:])
    for payload in payloads:
        assert await target.got.get() == (BINARY, payload)


async def test_frames_behind_the_targets_handshake_are_not_lost(upstream: Behind, front: Front) -> None:
    async def eager(line: Line) -> None:
        line.say(frame(TEXT, b"one") + frame(TEXT, b"two")[:2])
        await line.gone()

    caller = await opened(await front(await upstream(Target(eager)), route=ROUTE))
    assert await read(caller.reader) == (TEXT, b"one")


# How it ends


@pytest.mark.parametrize(("sent", "seen"), [(b"", 1000), (closing(4321, "why"), 4321), (closing(1014), 1014)])
async def test_codes_and_reasons_pass_both_ways(
    upstream: Behind, front: Front, sent: bytes, seen: int
) -> None:
    target = Target()
    serving = await front(await upstream(target), route=ROUTE)
    caller = await opened(serving)
    await say(caller, CLOSE, sent)
    assert await target.got.get() == (CLOSE, struct.pack("!H", seen) + sent[2:])
    other = Target()
    caller = await opened(await front(await upstream(other), route=ROUTE))
    (await other.line).say(frame(CLOSE, sent))
    assert await read(caller.reader) == (CLOSE, struct.pack("!H", seen) + sent[2:])


async def test_a_caller_that_resets_ends_the_targets_connection(upstream: Behind, front: Front) -> None:
    target = Target()
    up = await upstream(target)
    serving = await front(up, route=ROUTE)
    caller = await opened(serving)
    await say(caller, TEXT, b"last words")
    caller.writer.transport.abort()
    assert await target.got.get() == (TEXT, b"last words")
    assert await target.got.get() == (CLOSE, closing(1011, "the caller is gone"))
    await up.closed.wait()
    await until(lambda: not serving.gateway._live.active)


async def test_a_caller_that_does_not_wait_for_the_target_ends_the_handshake(
    upstream: Behind, front: Front
) -> None:
    async def slow(line: Line) -> None:
        await line.head()
        await line.gone()

    up = await upstream(slow)
    serving = await front(up, route=ROUTE)
    caller = await serving.caller()
    caller.say("/", *HANDSHAKE)
    await until(lambda: bool(up.heads))
    caller.leave()
    await up.closed.wait()
    await until(lambda: not serving.gateway._live.active)


async def test_websockets_past_their_bound_are_503_and_their_place_comes_back(
    upstream: Behind, front: Front
) -> None:
    async def script(line: Line) -> None:
        await accept(line)
        await line.gone()

    serving = await front(await upstream(script), route=ROUTE, websocket={"max_open": 2}, ejection=None)
    callers = [await opened(serving) for _ in range(2)]
    late = await serving.caller()
    late.say("/", *HANDSHAKE)
    answer = await late.answer()
    assert (answer.status, json.loads(answer.body)["reason"]) == (503, "pool_full")
    callers.pop().leave()
    await until(lambda: len(serving.gateway._live.active) == 1)
    await opened(serving)


async def test_a_target_that_resets_is_1011(upstream: Behind, front: Front) -> None:
    target = Target()
    caller = await opened(await front(await upstream(target), route=ROUTE))
    (await target.line).writer.transport.abort()
    assert await read(caller.reader) == (CLOSE, closing(1011, "the upstream failed"))


async def test_a_target_that_breaks_the_protocol_is_1011(upstream: Behind, front: Front) -> None:
    target = Target()
    caller = await opened(await front(await upstream(target), route=ROUTE))
    (await target.line).say(frame(TEXT, b"\xff"))
    assert (await target.got.get())[1][:2] == closing(1007)
    assert await read(caller.reader) == (CLOSE, closing(1011, "the upstream failed"))


async def test_a_target_that_does_not_answer_pings_has_failed(upstream: Behind, front: Front) -> None:
    target = Target()
    caller = await opened(await front(await upstream(target), route=ROUTE, websocket={"ping": "50ms"}))
    assert await target.got.get() == (PING, b"")
    assert await read(caller.reader) == (CLOSE, closing(1011, "the upstream failed"))


async def test_a_caller_that_does_not_answer_pings_is_gone(upstream: Behind, front: Front) -> None:
    target = Target()
    serving = await front(await upstream(target), route=ROUTE, config={"server": {"ping": "50ms"}})
    caller = await opened(serving)
    assert await read(caller.reader) == (PING, b"")
    assert (await read(caller.reader))[0] == CLOSE
    assert (await target.got.get())[0] == CLOSE


async def test_a_caller_that_answers_pings_stays(upstream: Behind, front: Front) -> None:
    target = Target()
    serving = await front(await upstream(target), route=ROUTE, config={"server": {"ping": "30ms"}})
    caller = await opened(serving)
    for _ in range(4):
        assert await read(caller.reader) == (PING, b"")
        await say(caller, PONG)
    await say(caller, TEXT, b"here")
    assert await target.got.get() == (TEXT, b"here")


# Bounds


async def test_a_message_of_a_caller_that_is_too_large_is_1009(upstream: Behind, front: Front) -> None:
    target = Target()
    limits = {"server": {"limits": {"message_bytes": "1KiB"}}}
    caller = await opened(await front(await upstream(target), route=ROUTE, config=limits))
    await say(caller, BINARY, bytes(1024))
    assert await target.got.get() == (BINARY, bytes(1024))
    # What still comes does not reset the connection, so that the reason can be read.
    await say(caller, BINARY, bytes(1_000_000))
    assert (await read(caller.reader))[1][:2] == closing(1009)
    assert (await target.got.get())[1][:2] == closing(1009)


async def test_fragments_count_together(upstream: Behind, front: Front) -> None:
    target = Target()
    limits = {"server": {"limits": {"message_bytes": "1KiB"}}}
    caller = await opened(await front(await upstream(target), route=ROUTE, config=limits))
    await say(caller, BINARY, bytes(1000), fin=False)
    await say(caller, CONT, bytes(25))
    assert (await read(caller.reader))[1][:2] == closing(1009)


async def test_a_message_of_a_target_that_is_too_large_is_1009(upstream: Behind, front: Front) -> None:
    target = Target()
    serving = await front(await upstream(target), route=ROUTE, websocket={"message_bytes": "1KiB"})
    caller = await opened(serving)
    (await target.line).say(frame(BINARY, bytes(1025)))
    assert (await target.got.get())[1][:2] == closing(1009)
    assert await read(caller.reader) == (CLOSE, closing(1009, "a message is too large"))


@pytest.mark.parametrize(("bound", "reason"), [("idle", "idle for too long"), ("life", "open for too long")])
async def test_both_sides_are_closed_when_the_time_is_over(
    upstream: Behind, front: Front, bound: str, reason: str
) -> None:
    target = Target()
    serving = await front(await upstream(target), route=ROUTE, websocket={bound: "50ms"})
    caller = await opened(serving)
    assert await read(caller.reader) == (CLOSE, closing(1001, reason))
    assert await target.got.get() == (CLOSE, closing(1001, reason))
    await until(lambda: not serving.gateway._live.active)


async def test_messages_keep_it_from_being_idle(upstream: Behind, front: Front) -> None:
    target = Target()
    caller = await opened(await front(await upstream(target), route=ROUTE, websocket={"idle": "300ms"}))
    for _ in range(6):
        await asyncio.sleep(0.1)
        await say(caller, TEXT, b"a")
        assert await target.got.get() == (TEXT, b"a")


def held(peer: GatewayWebSocket | Remote) -> int:
    """Bytes that one side holds in memory."""
    return peer._queued + len(peer._buffer) + len(peer._parts) + peer.transport.get_write_buffer_size()


def remote() -> Remote:
    (found,) = [thing for thing in gc.get_objects() if isinstance(thing, Remote) and not thing.lost]
    return found


async def test_a_slow_caller_slows_the_target(upstream: Behind, front: Front) -> None:
    message, many = frame(BINARY, bytes(16384)), 4096

    async def pours(line: Line) -> None:
        for _ in range(many):
            line.say(message)
            await line.writer.drain()
        line.say(frame(CLOSE, closing(1000)))
        await line.gone()

    serving = await front(await upstream(Target(pours)), route=ROUTE)
    caller = await opened(serving)
    (side,) = serving.state.connections
    assert isinstance(side, GatewayWebSocket)
    # asyncio stops reading on the caller's side, so that nothing is taken from the gateway.
    other = remote()
    await until(lambda: side.write_paused and other.reading_paused)
    assert held(side) + held(other) < 1024 * 1024
    for _ in range(many):
        assert len((await read(caller.reader))[1]) == 16384
    assert (await read(caller.reader))[0] == CLOSE


async def test_a_slow_target_slows_the_caller(upstream: Behind, front: Front) -> None:
    message, many, go = frame(BINARY, bytes(1000), mask=True), 30_000, asyncio.Event()
    seen = 0

    async def waits(line: Line) -> None:
        nonlocal seen
        await go.wait()
        while (await read(line.reader))[0] == BINARY:
            seen += 1
        line.say(frame(CLOSE, closing(1000)))

    serving = await front(await upstream(Target(waits)), route=ROUTE)
    caller = await opened(serving)
    (side,) = serving.state.connections
    assert isinstance(side, GatewayWebSocket)
    other = remote()

    async def pour() -> None:
        for _ in range(many):
            caller.writer.write(message)
            await caller.writer.drain()
        await say(caller, CLOSE, closing(1000))

    pouring = asyncio.ensure_future(pour())
    await until(lambda: other.write_paused and side.reading_paused)
    assert held(side) + held(other) < 1024 * 1024
    go.set()
    assert (await read(caller.reader))[0] == CLOSE
    await pouring
    await until(lambda: not serving.gateway._live.active)
    assert seen == many


async def test_pings_without_end_of_a_caller_that_reads_nothing_pile_up_nothing(
    upstream: Behind, front: Front
) -> None:
    serving = await front(await upstream(Target()), route=ROUTE)
    caller = await opened(serving)
    (side,) = serving.state.connections
    assert isinstance(side, GatewayWebSocket)
    caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
    pings = frame(PING, bytes(125), mask=True) * 500
    while not side.write_paused:
        caller.writer.write(pings)
        await caller.writer.drain()
    for _ in range(20):
        caller.writer.write(pings)
        await caller.writer.drain()
    assert held(side) < 1024 * 1024
    caller.writer.transport.abort()


# The server and the configuration


async def test_a_server_that_shuts_down_says_1001_and_still_listens(upstream: Behind, front: Front) -> None:
    target = Target()
    serving = await front(await upstream(target), route=ROUTE)
    caller = await opened(serving)
    (side,) = serving.state.connections
    side.shutdown()
    going = closing(1001, "the server is going away")
    assert await read(caller.reader) == (CLOSE, going)
    (await target.line).say(frame(TEXT, b"too late"))
    await say(caller, TEXT, b"in time")
    await say(caller, CLOSE, going)
    assert await target.got.get() == (TEXT, b"in time")
    assert await target.got.get() == (CLOSE, going)
    assert await caller.reader.read() == b""


async def test_a_handshake_that_has_begun_is_answered_before_the_server_shuts_down(
    upstream: Behind, front: Front
) -> None:
    go = asyncio.Event()

    async def waits(line: Line) -> None:
        await go.wait()
        await Target()(line)

    serving = await front(await upstream(waits), route=ROUTE)
    caller = await serving.caller()
    caller.say("/", *HANDSHAKE)
    await until(lambda: any(isinstance(side, GatewayWebSocket) for side in serving.state.connections))
    for side in serving.state.connections:
        side.shutdown()
    go.set()
    assert (await caller.head()).status == 101
    assert await read(caller.reader) == (CLOSE, closing(1001, "the server is going away"))
    await say(caller, CLOSE, closing(1001))


async def test_a_configuration_that_expires_closes_with_1012(upstream: Behind, front: Front) -> None:
    target = Target()
    serving = await front(
        await upstream(target), route=ROUTE, config={"server": {"limits": {"retired": "50ms"}}}
    )
    caller = await opened(serving)
    await serving.gateway.reload(GatewayConfig.model_validate(serving.gateway.config))
    assert await read(caller.reader) == (CLOSE, closing(1012, "try again"))
    assert await target.got.get() == (CLOSE, closing(1001, "the gateway is going away"))


# Refusals


async def test_a_refusal_of_the_target_passes_with_status_fields_and_body(
    upstream: Behind, front: Front
) -> None:
    async def refuses(line: Line) -> None:
        await line.head()
        line.say(b"HTTP/1.1 418 Teapot\r\nX-Why: \xe9\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n")
        line.say(b"Content-Length: 3\r\nConnection: close\r\n\r\nno!")

    serving = await front(await upstream(refuses), route=ROUTE)
    caller = await serving.caller()
    caller.say("/", *HANDSHAKE)
    answer = await caller.answer()
    assert (answer.status, answer.body) == (418, b"no!")
    assert answer.all(b"x-why") == [b"\xe9"]
    assert answer.all(b"set-cookie") == [b"a=1", b"b=2"]


async def test_a_target_that_says_nothing_is_504(upstream: Behind, front: Front) -> None:
    async def silent(line: Line) -> None:
        await line.head()
        await line.gone()

    serving = await front(await upstream(silent), route=ROUTE, timeout={"head": "50ms"})
    caller = await serving.caller()
    caller.say("/", *HANDSHAKE)
    answer = await caller.answer()
    assert (answer.status, json.loads(answer.body)["reason"]) == (504, "head_timeout")


@pytest.mark.parametrize(
    ("component", "statuses"),
    [("key_auth", [401]), ({"rate_limit": {"limit": "1/minute", "by": "ip"}}, [101, 429])],
)
async def test_components_refuse_before_the_target_is_contacted(
    upstream: Behind, front: Front, component: Any, statuses: list[int]
) -> None:
    up = await upstream(Target())
    route = {**ROUTE, "components": [component]}
    serving = await front(up, route=route, config={"consumers": [{"name": "acme", "keys": ["secret"]}]})
    for status in statuses:
        caller = await serving.caller()
        caller.say("/", *HANDSHAKE)
        answer = await caller.head()
        assert answer.status == status
    assert up.connections == len(statuses) - 1


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (("Sec-WebSocket-Version: 8", f"Sec-WebSocket-Key: {KEY}"), 426),
        (("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: short"), 400),
        (("Sec-WebSocket-Version: 13",), 400),
    ],
)
async def test_a_bad_handshake_goes_nowhere(
    upstream: Behind, front: Front, fields: tuple[str, ...], status: int
) -> None:
    up = await upstream()
    caller = await (await front(up, route=ROUTE)).caller()
    caller.say("/", "Connection: Upgrade", "Upgrade: websocket", *fields)
    answer = await caller.answer()
    assert (answer.status, answer.all(b"content-type")) == (status, [b"application/problem+json"])
    assert up.connections == 0


async def test_a_long_field_passes_as_it_does_in_a_plain_request(upstream: Behind, front: Front) -> None:
    up = await upstream(Target())
    cookie = "a=" + "b" * 20_000
    await opened(
        await front(up, route=ROUTE), "/x?y", f"Cookie: {cookie}", *(f"X-{n}: 1" for n in range(150))
    )
    assert f"cookie: {cookie}".encode() in up.heads[0]
    assert up.heads[0].startswith(b"GET /x?y HTTP/1.1\r\n")


# Apps in this process


def inside(front: Front, name: str = "app", **options: Any) -> Awaitable[Serving]:
    other = Raw()
    upstreams = {"up": {"targets": [{"asgi": f"{chat.__name__}:{name}"}], **options}}
    return front(other, route=ROUTE, config={"upstreams": upstreams})


async def test_an_app_is_a_target_like_any_other(front: Front) -> None:
    chat.ended.clear()
    serving = await inside(front)
    caller = await serving.caller()
    caller.say("/", *HANDSHAKE, "Sec-WebSocket-Protocol: one, two")
    assert (await caller.head()).all(b"sec-websocket-protocol") == [b"two"]
    for opcode, payload in ((TEXT, b"text"), (BINARY, b"\xff"), (TEXT, b"")):
        await say(caller, opcode, payload)
        assert await read(caller.reader) == (opcode, payload)
    await say(caller, CLOSE, closing(4002, "bye"))
    await until(lambda: bool(chat.ended))
    assert chat.ended.pop() == (4002, "bye")


async def test_an_app_is_told_when_its_caller_resets(front: Front) -> None:
    chat.ended.clear()
    caller = await opened(await inside(front))
    caller.writer.transport.abort()
    await until(lambda: bool(chat.ended))
    assert chat.ended.pop()[0] == 1006


async def test_an_app_that_lets_the_departure_pass_has_not_failed(front: Front) -> None:
    serving = await inside(front, "starlette")
    caller = await opened(serving)
    await say(caller, TEXT, b"a")
    assert await read(caller.reader) == (TEXT, b"a")
    caller.writer.transport.abort()
    await until(lambda: not serving.gateway._live.active)


@pytest.mark.parametrize(("path", "end"), [("/closes", closing(4001, "enough")), ("/returns", closing(1000))])
async def test_an_app_closes(front: Front, path: str, end: bytes) -> None:
    caller = await opened(await inside(front), path)
    await say(caller, TEXT, b"a")
    assert await read(caller.reader) == (CLOSE, end)


async def test_an_app_that_raises_is_1011(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    caller = await opened(await inside(front), "/raises")
    await say(caller, TEXT, b"a")
    assert await read(caller.reader) == (CLOSE, closing(1011, "the upstream failed"))
    assert [record.getMessage() for record in caplog.records] == [f"the app {chat.__name__}:app raised"]
    caplog.clear()


async def test_an_app_that_raises_before_it_accepts_is_500(
    front: Front, caplog: pytest.LogCaptureFixture
) -> None:
    caller = await (await inside(front)).caller()
    caller.say("/fails", *HANDSHAKE)
    assert (await caller.answer()).status == 500
    caplog.clear()


async def test_an_app_denies(front: Front) -> None:
    caller = await (await inside(front)).caller()
    caller.say("/deny", *HANDSHAKE)
    answer = await caller.head()
    assert (answer.status, answer.all(b"x-why")) == (418, [b"because"])
    assert await caller.reader.read() == b"no tea"


async def test_an_app_outlives_the_deadline_of_a_call_and_not_its_own(front: Front) -> None:
    serving = await inside(front, timeout={"total": "50ms"}, websocket={"life": "200ms"})
    caller = await opened(serving)
    await asyncio.sleep(0.1)
    await say(caller, TEXT, b"a")
    assert await read(caller.reader) == (TEXT, b"a")
    assert await read(caller.reader) == (CLOSE, closing(1001, "open for too long"))
