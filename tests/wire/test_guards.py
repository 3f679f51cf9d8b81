"""What guards a route, over real sockets: bodies past a limit, handshakes, preflights, forged addresses."""

import asyncio
import base64
import time
from typing import Any

import pytest

from tests.wire.conftest import Behind, Caller, Front, Line, Serving
from tests.wire.strict import Strict

INNER = b"GET /inner HTTP/1.1\r\nHost: gw.test\r\n\r\n"
APP, EVIL = "https://app.example.com", "https://evil.example"
EIGHT: dict[str, Any] = {"body_limit": {"max_size": "8B"}}


def chunks(*sizes: int, last: bool = True) -> bytes:
    """Chunks that are full of requests."""
    filler = INNER * (max(sizes) // len(INNER) + 1)
    pieces = [b"%x\r\n%b\r\n" % (size, filler[:size]) for size in sizes]
    return b"".join(pieces) + (b"0\r\n\r\n" if last else b"")


def with_components(*components: Any, **more: Any) -> dict[str, Any]:
    return {"components": list(components), **more}


def handshake(caller: Caller, *fields: str) -> None:
    key = base64.b64encode(bytes(16)).decode()
    version = ("Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}")
    caller.say("/", "Connection: Upgrade", "Upgrade: websocket", *version, *fields)


# Bodies


@pytest.mark.parametrize("transport", ["http1", "httpx"])
@pytest.mark.parametrize("sizes", [(9,), (4, 5), (2_000_000,), (4, 2_000_000)])
async def test_a_body_that_grows_too_large_is_cut_at_the_upstream(
    transport: str, sizes: tuple[int, ...], upstream: Behind, front: Front
) -> None:
    strict = Strict()
    serving = await front(await upstream(strict), route=with_components(EIGHT), transport=transport)
    caller = await serving.caller()
    caller.say("/", "Transfer-Encoding: chunked", method="POST")
    for size in sizes:
        caller.writer.write(chunks(size, last=False))
        await asyncio.sleep(0.01)
    caller.writer.write(b"0\r\n\r\n")
    answer = await caller.answer()
    assert (answer.status, b"body_too_large" in answer.body) == (413, True)
    assert (await caller.ask("/last")).status == 200
    assert set(strict.targets) <= {b"/", b"/last"}


@pytest.mark.parametrize("fields", [(), ("Expect: 100-continue",)])
async def test_an_announced_length_past_the_limit_is_refused_unread(
    fields: tuple[str, ...], upstream: Behind, front: Front
) -> None:
    up = await upstream()
    caller = await (await front(up, route=with_components(EIGHT))).caller()
    caller.say("/", "Content-Length: 1000000000000", *fields, method="POST")
    assert (await caller.head()).status == 413
    assert up.connections == 0


async def test_a_body_within_the_limit_arrives_as_it_was(upstream: Behind, front: Front) -> None:
    arrived: list[bytes] = []

    async def script(line: Line) -> None:
        await line.head()
        # It came at once: its length is known by now.
        arrived.append(await line.reader.readexactly(8))
        line.say(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    caller = await (await front(await upstream(script), route=with_components(EIGHT))).caller()
    caller.say("/", "Transfer-Encoding: chunked", method="POST")
    caller.writer.write(chunks(4, 4))
    assert (await caller.answer()).status == 200
    assert arrived == [b"GET GET "]


async def test_an_answer_that_had_begun_is_cut_with_its_request(upstream: Behind, front: Front) -> None:
    async def script(line: Line) -> None:
        await line.head()
        line.say(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegun")
        await line.gone()

    up = await upstream(script)
    caller = await (await front(up, route=with_components(EIGHT))).caller()
    caller.say("/", "Transfer-Encoding: chunked", method="POST")
    caller.writer.write(chunks(4, last=False))
    assert (await caller.head()).status == 200
    assert await caller.reader.readexactly(5) == b"begun"
    caller.writer.write(chunks(5))
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await caller.reader.readexactly(95)
    await up.closed.wait()


async def test_reporting_lets_all_of_a_body_pass(upstream: Behind, front: Front) -> None:
    strict = Strict()
    route = with_components({"body_limit": {"max_size": "8B", "mode": "report"}})
    caller = await (await front(await upstream(strict), route=route)).caller()
    caller.say("/", "Transfer-Encoding: chunked", method="POST")
    caller.writer.write(chunks(4, 4, 4))
    assert (await caller.answer()).status == 200
    assert strict.targets == [b"/"]


# Handshakes


HANDSHAKES: dict[str, tuple[dict[str, Any], tuple[str, ...], int]] = {
    "ip_filter": ({"deny": ["127.0.0.0/8"]}, (), 403),
    "cors": ({"origins": [APP], "websocket": True}, (f"Origin: {EVIL}",), 403),
    "csrf": ({}, (f"Origin: {EVIL}",), 403),
    "user_agent": ({"deny": ["curl"]}, ("User-Agent: curl/8",), 403),
    "referer": ({"allow": ["app.example.com"]}, (f"Origin: {EVIL}",), 403),
    "maintenance": ({"active": True}, (), 503),
}


async def declines(line: Line) -> None:
    await line.head()
    line.say(b"HTTP/1.1 400 Odd\r\ncontent-length: 0\r\n\r\n")


@pytest.mark.parametrize("name", HANDSHAKES)
async def test_handshakes_are_refused_before_anything_reaches_the_upstream(
    name: str, upstream: Behind, front: Front
) -> None:
    options, fields, status = HANDSHAKES[name]
    up = await upstream(declines)
    caller = await (await front(up, route=with_components({name: options}, websocket=True))).caller()
    handshake(caller, *fields)
    assert (await caller.head()).status == status
    assert up.connections == 0


@pytest.mark.parametrize("name", HANDSHAKES)
async def test_reporting_lets_handshakes_through(name: str, upstream: Behind, front: Front) -> None:
    options, fields, _ = HANDSHAKES[name]
    up = await upstream(declines)
    route = with_components({name: {**options, "mode": "report"}}, websocket=True)
    caller = await (await front(up, route=route)).caller()
    handshake(caller, *fields)
    assert (await caller.head()).status == 400
    assert up.connections == 1


# Addresses


FORGED = (
    "X-Forwarded-For: 10.1.2.3",
    "x_forwarded_for: 10.1.2.3",
    "Forwarded: for=10.1.2.3",
    "X-Real-IP: 10.1.2.3",
)


@pytest.mark.parametrize("field", FORGED)
async def test_a_forged_address_opens_nothing(field: str, upstream: Behind, front: Front) -> None:
    up = await upstream()
    serving = await front(up, route=with_components({"ip_filter": {"allow": ["10.0.0.0/8"]}}))
    caller = await serving.caller()
    for connection in ((), ("Connection: x-forwarded-for",)):
        assert (await caller.ask("/", field, *connection)).status == 403
    assert up.connections == 0


async def test_behind_a_trusted_proxy_its_word_counts(upstream: Behind, front: Front) -> None:
    serving = await front(
        await upstream(),
        route=with_components({"ip_filter": {"allow": ["10.0.0.0/8"]}}),
        config={"trusted_proxies": ["127.0.0.1"]},
    )
    caller = await serving.caller()
    assert (await caller.ask("/", "X-Forwarded-For: 203.0.113.9, 10.1.2.3")).status == 200
    assert (await caller.ask("/", "X-Forwarded-For: 10.1.2.3, 203.0.113.9")).status == 403
    assert (await caller.ask("/", "X-Forwarded-For: 10.1.2.3", "X-Forwarded-For: 203.0.113.9")).status == 403


@pytest.mark.parametrize(("hops", "status"), [(1, 403), (2, 200), (3, 403), (None, 403)])
async def test_as_many_proxies_are_believed_as_there_are(
    upstream: Behind, front: Front, hops: int | None, status: int
) -> None:
    """The caller is the second from the right; further left it says what it likes."""
    serving = await front(
        await upstream(),
        route=with_components({"ip_filter": {"allow": ["10.1.2.3"]}}),
        config={"trusted_proxies": ["127.0.0.1", "10.0.0.0/8"], "trusted_hops": hops},
    )
    answer = await (await serving.caller()).ask("/", "X-Forwarded-For: 10.6.6.6, 10.1.2.3, 10.9.9.9")
    assert answer.status == status


@pytest.mark.parametrize("hop", ["[" + ":" * 60_000, "a:" * 30_000, "10.1.2.3," * 6_000])
async def test_a_forwarding_field_of_the_maximum_size_holds_nobody_up(
    upstream: Behind, front: Front, hop: str
) -> None:
    serving = await front(await upstream(), config={"trusted_proxies": ["127.0.0.1", "10.0.0.0/8"]})
    before = time.monotonic()
    assert (await (await serving.caller()).ask("/", f"X-Forwarded-For: {hop}")).status == 200
    # Seconds, if the time that it takes grows with the square of the length.
    assert time.monotonic() - before < 1


# Pages


async def cors(upstream: Behind, front: Front) -> Serving:
    async def script(line: Line) -> None:
        while True:
            await line.head()
            line.say(b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\ncontent-length: 0\r\n\r\n")

    options = {"origins": [APP], "methods": ["GET", "PUT"], "credentials": True}
    route = with_components({"cors": options}, methods=["GET", "PUT"])
    return await front(await upstream(script), route=route)


async def test_a_preflight_and_the_request_behind_it(upstream: Behind, front: Front) -> None:
    caller = await (await cors(upstream, front)).caller()
    asks = ("Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: content-type")
    answer = await caller.ask("/", f"Origin: {APP}", *asks, method="OPTIONS")
    assert (answer.status, answer.all(b"content-length"), answer.all(b"transfer-encoding")) == (204, [], [])
    assert answer.all(b"access-control-allow-origin") == [APP.encode()]
    answer = await caller.ask("/", f"Origin: {APP}", method="PUT", body=b"{}")
    assert answer.all(b"access-control-allow-origin") == [APP.encode()]
    assert answer.all(b"access-control-allow-credentials") == [b"true"]
    assert answer.all(b"vary") == [b"origin"]


@pytest.mark.parametrize(
    "fields",
    [(f"Origin: {APP}.evil.example",), ("Origin: null",), (f"Origin: {APP}", f"Origin: {EVIL}"), ()],
)
async def test_other_pages_get_nothing(fields: tuple[str, ...], upstream: Behind, front: Front) -> None:
    caller = await (await cors(upstream, front)).caller()
    asks = "Access-Control-Request-Method: PUT"
    assert (await caller.ask("/", *fields, asks, method="OPTIONS")).status == 403
    answer = await caller.ask("/", *fields)
    assert (answer.status, answer.all(b"access-control-allow-origin")) == (200, [])


async def test_a_server_behind_is_not_named(upstream: Behind, front: Front) -> None:
    async def script(line: Line) -> None:
        await line.head()
        line.say(b"HTTP/1.1 200 OK\r\nServer: apache/1.3\r\nX-Powered-By: PHP/4\r\ncontent-length: 0\r\n\r\n")

    serving = await front(await upstream(script), route=with_components("security_headers"))
    answer = await (await serving.caller()).ask("/")
    assert answer.all(b"server") == answer.all(b"x-powered-by") == []
    assert answer.all(b"x-content-type-options") == [b"nosniff"]
