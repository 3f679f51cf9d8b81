"""A connection to a target is used again only when nothing of one request is left on it."""

import asyncio
import contextlib
import gc
import json
import random
import socket
from typing import Any

import pytest

from asgi_gateway.upstream import Target
from tests.wire.conftest import OK, Behind, Front, Line, Raw, Serving, answering

from .conftest import Deaf, H, until
from .slamming import slamming


def reason(body: bytes) -> str:
    return str(json.loads(body)["reason"])


async def read_body(line: Line, head: bytes) -> bytes:
    """The body of a request with a length."""
    _, found, rest = head.partition(b"content-length: ")
    return await line.reader.readexactly(int(rest.split(b"\r\n")[0])) if found else b""


async def echoes(line: Line) -> None:
    """The path and the body of each request, on connections that stay."""
    while True:
        head = await line.head()
        body = head.split()[1] + b" " + await read_body(line, head)
        line.say(H + b"content-length: %d\r\n\r\n%b" % (len(body), body))


# C1


@pytest.mark.parametrize("how", ["close", "reset", "talk", "talk reset"])
async def test_a_target_that_closes_what_it_accepts_costs_no_place(how: str, narrow: Front) -> None:
    with slamming(*how.split()) as port:
        serving = await narrow(Raw(port), timeout={"head": "1h", "total": "1h"})
        caller = await serving.caller()
        for method, body in [("GET", b""), ("POST", b"x")] * 10:
            answer = await caller.ask(method=method, body=body)
            # What was said just when the request went out looks like its answer.
            assert answer.status == 502 or (answer.status == 408 and "talk" in how)


# C2


async def test_an_answer_before_the_body_is_given_to_nobody_else(upstream: Behind, narrow: Front) -> None:
    """A server that tells an idle client 408, and keeps the connection."""
    said = asyncio.Event()

    async def script(line: Line) -> None:
        if line.upstream.connections == 1:
            await line.head()
            line.say(OK)
            line.say(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 3\r\n\r\n408")
            said.set()
        await echoes(line)

    up = await upstream(script)
    serving = await narrow(up, timeout={"total": "5s"})
    a, b = await serving.caller(), await serving.caller()
    a.writer.write(b"POST /a HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 6\r\n\r\n")
    assert (await b.ask("/first")).body == b"ok"
    await said.wait()
    assert (await b.ask("/b")).body == b"/b "
    a.writer.write(b"SECRET")
    assert (await a.answer()).body == b"/a SECRET"
    assert (await b.ask("/c")).body == b"/c "


async def test_a_408_is_never_the_last_but_one_answer_of_a_connection(
    upstream: Behind, narrow: Front
) -> None:
    """It may be the answer to nothing, said when the request was on its way; the right one comes behind."""

    async def script(line: Line) -> None:
        if line.upstream.connections == 1:
            await line.head()
            line.say(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 3\r\n\r\n408")
            await asyncio.sleep(0.01)
            line.say(H + b"content-length: 5\r\n\r\nwrong")
        await echoes(line)

    serving = await narrow(await upstream(script))
    caller = await serving.caller()
    assert (await caller.ask("/a")).status == 408
    assert (await caller.ask("/b")).body == b"/b "


# C3, H4


@pytest.mark.parametrize("size", [0, 300_000])
async def test_an_early_answer_whose_caller_leaves_ends_its_connection(
    size: int, upstream: Behind, narrow: Front
) -> None:
    async def script(line: Line) -> None:
        head = await line.head()
        if head.startswith(b"POST"):
            line.say(H + b"content-length: %d\r\n\r\n" % size + bytes(size))
            with contextlib.suppress(ConnectionError):
                await line.gone()
            line.upstream.closed.set()
        line.say(OK)

    up = await upstream(script)
    serving = await narrow(up)
    deaf = Deaf(serving.port)
    deaf.say("/", "Content-Length: 1000", method="POST", body=b"first")
    await until(lambda: up.heads)
    await deaf.read(1)
    deaf.leave()
    await up.closed.wait()
    answer = await (await serving.caller()).ask("/victim")
    assert (answer.status, answer.body) == (200, b"ok")
    assert len(up.heads) == 2


async def test_a_request_that_did_not_go_out_as_a_whole_ends_its_connection(front: Front) -> None:
    """The caller has sent all of it, and the target answered; the rest waits in front of the target."""
    loop = asyncio.get_running_loop()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        serving = await front(Raw(listener.getsockname()[1]), pool={"max_connections": 1})

        async def target() -> None:
            first, _ = await loop.sock_accept(listener)
            with first:
                await loop.sock_recv(first, 1000)
                await loop.sock_sendall(first, OK)
                # The gateway is the one that ends it.
                with contextlib.suppress(ConnectionError):
                    while await loop.sock_recv(first, 65536):
                        pass
            second, _ = await loop.sock_accept(listener)
            with second:
                assert (await loop.sock_recv(second, 1000)).startswith(b"GET /victim ")
                await loop.sock_sendall(second, OK)

        serves = asyncio.create_task(target())
        caller = await serving.caller()
        caller.say(method="POST", body=bytes(2_000_000))
        assert (await caller.answer()).status == 200
        assert (await (await serving.caller()).ask("/victim")).status == 200
        await serves


# H3


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("GET", H + b"content-length: 2\r\n\r\nok" + H + b"content-length: 4\r\nx: "),
        ("GET", H + b"content-length: 2\r\n\r\nok" + H + b"content-length: 4\r\n\r\nevil"),
        ("GET", H + b"content-length: 2\r\n\r\nokH"),
        ("GET", H + b"content-length: 2\r\n\r\nokHTTP/1.1 100 Continue\r\n\r\n"),
        ("GET", H + b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + H[:5]),
        ("HEAD", H + b"content-length: 4\r\n\r\nevil"),
        ("HEAD", H + b"content-length: 4\r\n\r\n" + H[:9]),
        ("HEAD", H + b"content-length: 4\r\n\r\n\r\n"),
        ("HEAD", H + b"transfer-encoding: chunked\r\n\r\n2"),
        ("HEAD", H + b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n" + H[:1]),
        ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 4\r\n\r\nevil"),
    ],
)
async def test_a_connection_with_bytes_behind_an_answer_is_not_used_again(
    method: str, said: bytes, upstream: Behind, narrow: Front
) -> None:
    async def script(line: Line) -> None:
        if line.upstream.connections == 1:
            await line.head()
            line.say(said)
            await line.gone()
        await echoes(line)

    up = await upstream(script)
    caller = await (await narrow(up)).caller()
    assert (await caller.ask("/first", method=method)).status in (200, 204, 304)
    assert (await caller.ask("/second")).body == b"/second "
    assert up.connections == 2


# M7


async def test_a_request_that_kills_its_connection_is_repeated_once(upstream: Behind, front: Front) -> None:
    async def script(line: Line) -> None:
        while b"/die" not in await line.head():
            await gate.wait()
            line.say(OK)

    gate = asyncio.Event()
    up = await upstream(script)
    serving = await front(up, ejection=None)
    callers = [await serving.caller() for _ in range(20)]
    asked = [asyncio.ensure_future(caller.ask()) for caller in callers]
    await until(lambda: len(up.heads) == 20)
    gate.set()
    await asyncio.gather(*asked)
    assert (await callers[0].ask("/die", method="DELETE")).status == 502
    assert len(up.heads) == 22


@pytest.mark.parametrize(("method", "body", "sent"), [("POST", b"", 1), ("PUT", b"x", 1), ("PUT", b"", 2)])
async def test_only_idempotent_requests_without_a_body_are_sent_again(
    method: str, body: bytes, sent: int, upstream: Behind, narrow: Front
) -> None:
    async def script(line: Line) -> None:
        await line.head()
        line.say(OK)
        await line.head()

    up = await upstream(script)
    caller = await (await narrow(up)).caller()
    assert (await caller.ask()).status == 200
    answer = await caller.ask("/", method=method, body=body)
    assert answer.status == (200 if sent == 2 else 502)
    assert len(up.heads) == 1 + sent


async def test_idle_connections_that_close_at_random_fail_no_get_and_repeat_no_post(
    upstream: Behind, front: Front
) -> None:
    dice = random.Random(7)
    posted: list[bytes] = []

    async def script(line: Line) -> None:
        patience = None
        try:
            while True:
                async with asyncio.timeout(patience) as idle:
                    head = await line.head()
                    idle.reschedule(None)
                    patience = dice.uniform(0, 0.002)
                    if head.startswith(b"POST"):
                        posted.append(head.split()[1])
                        await line.reader.readexactly(1)
                    line.say(OK)
        except TimeoutError:
            pass

    serving = await front(await upstream(script), pool={"max_connections": 20}, ejection=None)

    async def ask(number: int) -> None:
        caller = await serving.caller()
        for turn in range(200):
            if turn % 10:
                assert (await caller.ask()).status == 200
            else:
                answer = await caller.ask(f"/{number}/{turn}", method="POST", body=b"x")
                assert answer.status in (200, 502)

    await asyncio.gather(*map(ask, range(25)))
    assert len(posted) == len(set(posted)) > 100


# M8, L4, replacing


def target_of(serving: Serving) -> Target:
    kept = serving.gateway._kernel.resources._kept.values()
    (target,) = (each.value for each in kept if isinstance(each.value, Target))
    return target


async def test_closing_wakes_who_is_served_and_who_waits(upstream: Behind, front: Front) -> None:
    async def hangs(line: Line) -> None:
        await line.head()
        await line.gone()

    up = await upstream(hangs)
    serving = await front(up, pool={"max_connections": 1, "wait": "1h"}, timeout={"total": "1h"})
    served, waits = await serving.caller(), await serving.caller()
    served.say()
    await until(lambda: up.heads)
    waits.say()
    target = target_of(serving)
    await until(lambda: target.active == 2)
    await target.aclose()
    answers = [await caller.answer() for caller in (served, waits)]
    assert [(each.status, reason(each.body)) for each in answers] == [(502, "reset"), (503, "no_target")]
    assert repr(target.transport).endswith("active=0 idle=0 waiting=0>")
    assert target.active == 0
    waits.say()
    await until(lambda: len(up.heads) == 2)


@pytest.mark.parametrize(
    "said", [H + b"content-length: 2\r\nconnection: close\r\n\r\nok", H + b"\r\nok", b"", b"nonsense\r\n\r\n"]
)
async def test_an_answer_that_ends_its_connection_leaves_no_cyclic_garbage(
    said: bytes, upstream: Behind, narrow: Front
) -> None:
    caller = await (await narrow(await upstream(answering(said)))).caller()
    for _ in range(5):
        await caller.ask()
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(10):
            await caller.ask()
        gc.collect()
        # The transports of asyncio know themselves.
        assert not [each for each in gc.garbage if type(each).__module__.startswith("asgi_gateway")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


@pytest.mark.parametrize(("pool", "connections"), [({"max_requests": 3}, 4), ({"max_age": "1us"}, 10)])
async def test_a_connection_that_served_long_enough_is_replaced(
    pool: dict[str, Any], connections: int, upstream: Behind, narrow: Front
) -> None:
    up = await upstream()
    caller = await (await narrow(up, pool=pool)).caller()
    for _ in range(10):
        assert (await caller.ask()).status == 200
    assert up.connections == connections


async def test_a_name_is_looked_up_again_for_each_connection(
    upstream: Behind, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await upstream(), await upstream()
    places = iter([one.port, two.port])
    loop = asyncio.get_running_loop()
    getaddrinfo = loop.getaddrinfo

    async def lookup(host: str, port: int, **options: Any) -> Any:
        if host != "orders.test":
            return await getaddrinfo(host, port, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", next(places)))]

    monkeypatch.setattr(loop, "getaddrinfo", lookup)
    url = "http://orders.test:80"
    serving = await front(config={"upstreams": {"up": {"targets": [url], "pool": {"max_requests": 2}}}})
    caller = await serving.caller()
    for _ in range(4):
        assert (await caller.ask()).status == 200
    assert (len(one.heads), len(two.heads)) == (2, 2)
