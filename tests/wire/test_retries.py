"""What is tried again, where, and how often; hits are counted at the upstreams (P27 to P29)."""

import asyncio
import contextlib
import json
import socket
from typing import Any

import pytest

from asgi_gateway.asgi import Message
from asgi_gateway.gateway import Gateway
from asgi_gateway.testing import HandClock

from .conftest import OK, Answer, Behind, Front, Line, Raw, Script, served
from .test_websocket import CLOSE, HANDSHAKE, TEXT, Target, closing, opened, read, say

LARGE = bytes(300_000)
BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy"
SAFE = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")
UNSAFE = ("POST", "PATCH", "LOCK")


def retry(**options: Any) -> dict[str, Any]:
    allowed = {"budget": {"minimum": 1000}, "back_off": "0s", **options}
    return {"components": [{"retry": allowed}], "ejection": None}


async def closes(line: Line) -> None:
    await line.head()


async def silent(line: Line) -> None:
    await line.head()
    await line.gone()


async def babbles(line: Line) -> None:
    await line.head()
    line.say(b"this is no HTTP\r\n\r\n")
    await line.gone()


async def busy(line: Line) -> None:
    await line.head()
    line.say(BUSY)
    await line.gone()


FAULTS: dict[str, Script] = {"closes": closes, "silent": silent, "babbles": babbles, "busy": busy}


def nowhere() -> Raw:
    """A port at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Raw(probe.getsockname()[1])


async def one_request(
    front: Front, *ups: Raw, method: str, body: bytes = b"", fault: str = "", **options: Any
) -> Answer:
    patience = {"head": "200ms"} if fault == "silent" else {}
    serving = await front(*ups, timeout=patience, **retry(max_body="1KiB", **options))
    return await (await serving.caller()).ask(method=method, body=body)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("body", [b"", b"small"], ids=["no body", "a body"])
async def test_what_is_idempotent_is_tried_at_another_target(
    upstream: Behind, front: Front, fault: str, body: bytes
) -> None:
    for method in SAFE:
        bad, good = await upstream(FAULTS[fault]), await upstream()
        answer = await one_request(front, bad, good, method=method, body=body, fault=fault)
        assert (answer.status, len(bad.heads), len(good.heads)) == (200, 1, 1), method


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("body", [b"", b"small", LARGE], ids=["no body", "a body", "a large body"])
async def test_what_may_have_been_executed_is_not_tried_again(
    upstream: Behind, front: Front, fault: str, body: bytes
) -> None:
    for method in UNSAFE:
        bad, good = await upstream(FAULTS[fault]), await upstream()
        answer = await one_request(front, bad, good, method=method, body=body, fault=fault)
        assert answer.status in (502, 503, 504)
        assert (len(bad.heads), len(good.heads)) == (1, 0), method


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_body_too_large_to_be_held_is_sent_once(upstream: Behind, front: Front, fault: str) -> None:
    bad, good = await upstream(FAULTS[fault]), await upstream()
    answer = await one_request(front, bad, good, method="PUT", body=LARGE, fault=fault)
    assert answer.status in (502, 503, 504)
    assert (len(bad.heads), len(good.heads)) == (1, 0)


@pytest.mark.parametrize("method", [*SAFE, *UNSAFE])
async def test_what_was_not_sent_is_tried_again_whatever_it_is(
    upstream: Behind, front: Front, method: str
) -> None:
    good = await upstream()
    answer = await one_request(front, nowhere(), good, method=method, body=b"small")
    assert (answer.status, len(good.heads)) == (200, 1)


async def test_a_route_may_say_that_posts_can_be_repeated(upstream: Behind, front: Front) -> None:
    bad, good = await upstream(closes), await upstream()
    answer = await one_request(front, bad, good, method="POST", body=b"small", methods=["POST"])
    assert (answer.status, len(bad.heads), len(good.heads)) == (200, 1, 1)


async def test_the_whole_body_reaches_the_second_target(upstream: Behind, front: Front) -> None:
    got = bytearray()

    async def takes(line: Line) -> None:
        head = await line.head()
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        got.extend(await line.reader.readexactly(size))
        line.say(OK)

    async def stops(line: Line) -> None:
        await line.head()
        await line.reader.readexactly(1000)

    body = bytes(range(256)) * 200
    bad, good = await upstream(stops), await upstream(takes)
    serving = await front(bad, good, **retry())
    assert (await (await serving.caller()).ask(method="PUT", body=body)).status == 200
    assert bytes(got) == body


async def test_a_body_is_not_held_back_for_another_attempt(upstream: Behind, front: Front) -> None:
    half = asyncio.Event()

    async def takes(line: Line) -> None:
        await line.head()
        await line.reader.readexactly(5)
        half.set()
        await line.reader.readexactly(5)
        line.say(OK)

    caller = await (await front(await upstream(takes), **retry())).caller()
    caller.writer.write(b"PUT / HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 10\r\n\r\n12345")
    await half.wait()
    caller.writer.write(b"67890")
    assert (await caller.answer()).status == 200


async def test_an_answer_that_began_is_never_tried_again(upstream: Behind, front: Front) -> None:
    async def breaks(line: Line) -> None:
        await line.head()
        line.say(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome")

    bad, good = await upstream(breaks), await upstream()
    caller = await (await front(bad, good, **retry())).caller()
    caller.say()
    assert (await caller.head()).status == 200
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await caller.reader.readexactly(100)
    assert (len(bad.heads), len(good.heads)) == (1, 0)


async def test_after_the_last_attempt_the_caller_gets_the_answer(upstream: Behind, front: Front) -> None:
    ups = [await upstream(busy) for _ in range(3)]
    answer = await (await (await front(*ups, **retry(attempts=3))).caller()).ask()
    assert (answer.status, answer.body) == (503, b"busy")
    assert [len(up.heads) for up in ups] == [1, 1, 1]


async def test_a_flapping_upstream_is_not_noticed(upstream: Behind, front: Front) -> None:
    async def flaps(line: Line) -> None:
        while True:
            await line.head()
            line.say(BUSY if len(line.upstream.heads) % 2 else OK)

    caller = await (await front(await upstream(flaps), **retry())).caller()
    assert {(await caller.ask()).status for _ in range(20)} == {200}


@pytest.mark.parametrize("wanted", [b"120", b"Fri, 01 Jan 2100 00:00:00 GMT"], ids=["seconds", "date"])
async def test_a_target_that_asks_for_a_long_pause_gets_it(
    upstream: Behind, front: Front, wanted: bytes
) -> None:
    async def later(line: Line) -> None:
        await line.head()
        line.say(BUSY.replace(b"\r\n\r\n", b"\r\nretry-after: " + wanted + b"\r\n\r\n"))
        await line.gone()

    first, second = await upstream(later), await upstream()
    answer = await (await (await front(first, second, **retry())).caller()).ask()
    assert (answer.status, answer.all(b"retry-after")) == (503, [wanted])
    assert (len(first.heads), len(second.heads)) == (1, 0)


async def test_a_short_pause_is_waited_for(upstream: Behind, front: Front) -> None:
    async def soon(line: Line) -> None:
        await line.head()
        line.say(BUSY.replace(b"\r\n\r\n", b"\r\nretry-after: 1\r\n\r\n"))
        await line.gone()

    first, second = await upstream(soon), await upstream()
    serving, now = await front(first, second, **retry()), asyncio.get_running_loop().time
    began = now()
    assert (await (await serving.caller()).ask()).status == 200
    assert now() - began >= 1


async def test_a_pause_that_is_longer_than_the_deadline_is_not_begun(upstream: Behind, front: Front) -> None:
    async def later(line: Line) -> None:
        await line.head()
        line.say(BUSY.replace(b"\r\n\r\n", b"\r\nretry-after: 5\r\n\r\n"))
        await line.gone()

    up = await upstream(later)
    serving = await front(up, timeout={"total": "3s"}, **retry(max_retry_after="1m"))
    assert (await (await serving.caller()).ask()).status == 503
    assert len(up.heads) == 1


async def test_one_deadline_holds_for_all_attempts(upstream: Behind) -> None:
    up, clock = await upstream(silent), HandClock()
    options = {"targets": [up.url], "timeout": {"head": "4s", "total": "10s"}, **retry(attempts=10)}
    document = {"upstreams": {"up": options}, "routes": [{"name": "all", "path": "/*", "upstream": "up"}]}
    async with served(Gateway.parse(document, clock=clock)) as serving:
        caller = await serving.caller()
        caller.say()
        for tried in range(1, 4):
            while len(up.heads) < tried:
                await asyncio.sleep(0.001)
            clock.advance(4.1)
        answer = await caller.answer()
    assert (answer.status, json.loads(answer.body)["reason"]) == (504, "total_timeout")
    assert len(up.heads) == 3


async def test_a_caller_who_leaves_in_the_pause_ends_it(upstream: Behind, front: Front) -> None:
    async def later(line: Line) -> None:
        await line.head()
        line.say(BUSY.replace(b"\r\n\r\n", b"\r\nretry-after: 60\r\nconnection: close\r\n\r\n"))
        await line.gone()

    up = await upstream(later)
    serving = await front(up, timeout={"total": "10m"}, **retry(max_retry_after="5m"))
    caller = await serving.caller()
    caller.say()
    await up.closed.wait()
    assert serving.state.tasks
    caller.leave()
    while serving.state.tasks:
        await asyncio.sleep(0.001)
    assert len(up.heads) == 1


async def test_a_storm_of_retries_is_bounded(upstream: Behind, front: Front) -> None:
    async def always_busy(line: Line) -> None:
        while True:
            await line.head()
            line.say(BUSY)

    up = await upstream(always_busy)
    serving = await front(up, **retry(attempts=10, budget={"percent": 20, "minimum": 0}))
    callers = [await serving.caller() for _ in range(50)]

    async def asks(number: int) -> None:
        for _ in range(10):
            assert (await callers[number].ask()).status == 503

    await asyncio.gather(*(asks(number) for number in range(50)))
    assert 500 < len(up.heads) <= 600


async def test_an_event_stream_that_is_discarded_leaves_the_deadline_in_force(
    upstream: Behind, front: Front
) -> None:
    async def stream(line: Line) -> None:
        await line.head()
        head = b"HTTP/1.1 503 Busy\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        line.say(head)
        await line.gone()

    first, second = await upstream(stream), await upstream(silent)
    serving = await front(first, second, timeout={"total": "100ms"}, **retry())
    answer = await (await serving.caller()).ask()
    assert (answer.status, json.loads(answer.body)["reason"]) == (504, "total_timeout")


async def swallows(scope: Any, receive: Any, send: Any) -> None:
    """An app that takes every exception for its own."""
    for message in (
        {"type": "http.response.start", "status": 503, "headers": []},
        {"type": "http.response.body", "body": b"busy"},
    ):
        with contextlib.suppress(Exception):
            await send(message)


async def wraps(scope: Any, receive: Any, send: Any) -> None:
    """An app in whose task group something failed."""
    try:
        await send({"type": "http.response.start", "status": 503, "headers": []})
    except Exception as error:
        raise ExceptionGroup("something failed", [error]) from None


async def good(scope: Any, receive: Any, send: Any) -> None:
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"good " + body})


@pytest.mark.parametrize("app", ["swallows", "wraps"])
@pytest.mark.parametrize("body", [b"", b"body"], ids=["no body", "a body"])
async def test_an_app_that_hides_what_came_out_of_send_is_tried_again(app: str, body: bytes) -> None:
    targets = [{"asgi": f"tests.wire.test_retries:{name}"} for name in (app, "good")]
    document = {
        "upstreams": {"up": {"targets": targets, **retry()}},
        "routes": [{"name": "all", "path": "/*", "upstream": "up"}],
    }
    async with served(Gateway.parse(document)) as front:
        assert (await (await front.caller()).ask(method="PUT", body=body)).body == b"good " + body


# A time for each attempt


def tries(*targets: Any, clock: HandClock, **options: Any) -> Gateway:
    """A gateway whose attempts have a second each, on a clock that the test moves."""
    components = [*options.pop("components", ()), {"retry": {"back_off": "0s", "per_try": "1s", **options}}]
    up = {
        "targets": list(targets),
        "components": components,
        "ejection": None,
        "timeout": {"head": "1h", "idle": "1h", "total": "5s"},
    }
    routes = [{"name": "all", "path": "/*", "upstream": "up", "websocket": True}]
    return Gateway.parse({"upstreams": {"up": up}, "routes": routes}, clock=clock)


async def until(*, there: Any) -> None:
    while not there():
        await asyncio.sleep(0.001)


async def hangs(scope: Any, receive: Any, send: Any) -> None:
    """An app that takes the whole request and then does nothing."""
    assert scope["type"] == "http", "it has no lifespan"
    while (await receive()).get("more_body"):
        pass
    HUNG.append(scope["type"])
    try:
        await asyncio.Event().wait()
    finally:
        ENDED.append(scope["type"])


HUNG: list[str] = []
ENDED: list[str] = []


@pytest.mark.parametrize("body", [b"", b"body"], ids=["no body", "a body"])
async def test_an_attempt_that_takes_too_long_is_made_elsewhere(upstream: Behind, body: bytes) -> None:
    bad, good, clock = await upstream(silent), await upstream(), HandClock()
    async with served(tries(bad.url, good.url, clock=clock)) as serving:
        caller = await serving.caller()
        caller.say(method="PUT", body=body)
        await until(there=lambda: bad.heads)
        clock.advance(0.9)
        await asyncio.sleep(0.06)
        assert not good.heads
        clock.advance(0.2)
        assert (await caller.answer()).status == 200
        await bad.closed.wait()


async def test_what_an_attempt_may_have_done_is_not_done_twice(upstream: Behind) -> None:
    bad, good, clock = await upstream(silent), await upstream(), HandClock()
    async with served(tries(bad.url, good.url, clock=clock)) as serving:
        caller = await serving.caller()
        caller.say(method="POST", body=b"order")
        await until(there=lambda: bad.heads)
        clock.advance(1.1)
        answer = await caller.answer()
    assert (answer.status, json.loads(answer.body)["reason"]) == (504, "head_timeout")
    assert not good.heads


@pytest.mark.parametrize("body", [b"", b"body"], ids=["no body", "a body"])
async def test_an_app_that_takes_too_long_is_ended(body: bytes) -> None:
    HUNG.clear()
    ENDED.clear()
    clock, apps = HandClock(), [{"asgi": f"tests.wire.test_retries:{name}"} for name in ("hangs", "good")]
    async with served(tries(*apps, clock=clock)) as serving:
        caller = await serving.caller()
        for _ in range(2):
            HUNG.clear()
            caller.say(method="PUT", body=body)
            answer = asyncio.ensure_future(caller.answer())
            while not answer.done():
                await asyncio.sleep(0.001)
                if HUNG:
                    HUNG.clear()
                    clock.advance(1.1)
            assert (await answer).body == b"good " + body
    assert set(ENDED) == {"http"}


async def test_an_answer_that_began_has_its_time(upstream: Behind) -> None:
    go = asyncio.Event()

    async def slowly(line: Line) -> None:
        await line.head()
        line.say(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na")
        await go.wait()
        line.say(b"b")
        await line.gone()

    up, clock = await upstream(slowly), HandClock()
    async with served(tries(up.url, clock=clock)) as serving:
        caller = await serving.caller()
        caller.say()
        assert (await caller.head()).status == 200
        clock.advance(2)
        await asyncio.sleep(0.06)
        go.set()
        assert await caller.reader.readexactly(2) == b"ab"
    assert len(up.heads) == 1


async def test_an_attempt_does_not_run_while_the_caller_is_late(upstream: Behind) -> None:
    bad, good, clock = await upstream(silent), await upstream(), HandClock()
    async with served(tries(bad.url, good.url, clock=clock)) as serving:
        caller = await serving.caller()
        caller.writer.write(b"PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbo")
        await until(there=lambda: bad.heads)
        clock.advance(1.1)
        await asyncio.sleep(0.06)
        assert not good.heads
        caller.writer.write(b"dy")
        await asyncio.sleep(0.06)
        assert not good.heads
        clock.advance(1.1)
        assert (await caller.answer()).status == 200


async def test_attempts_do_not_outlive_the_deadline(upstream: Behind) -> None:
    up, clock = await upstream(silent), HandClock()
    async with served(tries(up.url, clock=clock, attempts=10, budget={"minimum": 100})) as serving:
        caller = await serving.caller()
        caller.say()
        for tried in range(1, 6):
            await until(there=lambda tried=tried: len(up.heads) == tried)
            clock.advance(1.1)
        answer = await caller.answer()
    assert (answer.status, json.loads(answer.body)["reason"]) == (504, "total_timeout")
    assert len(up.heads) == 5


async def test_who_leaves_in_an_attempt_ends_it(upstream: Behind) -> None:
    clock = HandClock()
    HUNG.clear()
    async with served(tries({"asgi": "tests.wire.test_retries:hangs"}, clock=clock)) as serving:
        caller = await serving.caller()
        caller.say()
        await until(there=lambda: HUNG)
        clock.advance(1.1)
        caller.leave()
        await until(there=lambda: not serving.state.tasks)
        assert not serving.gateway._live.active


async def test_an_attempt_that_takes_too_long_counts_for_a_breaker(upstream: Behind) -> None:
    up, clock = await upstream(silent), HandClock()
    breaker = {"breaker": {"failures": 1}}
    async with served(tries(up.url, clock=clock, components=[breaker])) as serving:
        caller = await serving.caller()
        caller.say()
        await until(there=lambda: up.heads)
        clock.advance(1.1)
        answer = await caller.answer()
    assert json.loads(answer.body)["reason"] == "circuit_open"
    assert len(up.heads) == 1


async def test_a_handshake_that_takes_too_long_is_made_elsewhere(upstream: Behind) -> None:
    bad, target, clock = await upstream(silent), Target(), HandClock()
    good = await upstream(target)
    async with served(tries(bad.url, good.url, clock=clock)) as serving:
        opening = asyncio.ensure_future(opened(serving))
        await until(there=lambda: bad.heads)
        clock.advance(1.1)
        await opening


# WebSocket


@pytest.mark.parametrize("fault", ["refused", "closes", "busy"])
async def test_a_handshake_is_tried_at_another_target(upstream: Behind, front: Front, fault: str) -> None:
    target = Target()
    bad = nowhere() if fault == "refused" else await upstream(FAULTS[fault])
    serving = await front(bad, await upstream(target), route={"websocket": True}, **retry())
    caller = await opened(serving)
    await say(caller, TEXT, b"hello")
    assert await target.got.get() == (TEXT, b"hello")
    await say(caller, CLOSE, closing(1000))
    assert await read(caller.reader) == (CLOSE, closing(1000))


async def test_after_the_last_attempt_a_handshake_is_refused(upstream: Behind, front: Front) -> None:
    ups = [await upstream(busy) for _ in range(2)]
    caller = await (await front(*ups, route={"websocket": True}, **retry())).caller()
    caller.say("/", *HANDSHAKE)
    assert (await caller.answer()).status == 503
    assert [len(up.heads) for up in ups] == [1, 1]


async def test_a_websocket_that_breaks_is_not_opened_again(upstream: Behind, front: Front) -> None:
    async def breaks(line: Line) -> None:
        return

    bad, good = await upstream(Target(breaks)), await upstream()
    caller = await opened(await front(bad, good, route={"websocket": True}, **retry()))
    assert (await read(caller.reader))[0] == CLOSE
    assert (len(bad.heads), len(good.heads)) == (1, 0)


# Reload


async def test_a_reload_keeps_the_budget(upstream: Behind, front: Front) -> None:
    async def always(line: Line) -> None:
        while True:
            await line.head()
            line.say(BUSY)

    up = await upstream(always)
    serving = await front(up, **retry(budget={"percent": 0, "minimum": 2}))
    caller = await serving.caller()
    for _ in range(4):
        await caller.ask()
    await serving.gateway.reload(serving.gateway.config)
    for _ in range(4):
        await caller.ask()
    assert len(up.heads) == 8 + 2


# A server that does not cancel


async def test_on_a_server_that_does_not_cancel_the_pause_ends_too(upstream: Behind) -> None:
    async def later(line: Line) -> None:
        await line.head()
        line.say(BUSY.replace(b"\r\n\r\n", b"\r\nretry-after: 60\r\nconnection: close\r\n\r\n"))
        await line.gone()

    up, left = await upstream(later), asyncio.Event()
    options = {"targets": [up.url], "timeout": {"total": "10m"}, **retry(max_retry_after="5m")}
    document = {"upstreams": {"up": options}, "routes": [{"name": "all", "path": "/*", "upstream": "up"}]}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [(b"host", b"gw.test")],
    }

    async def receive() -> Message:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        raise AssertionError("nobody is there")

    gateway = Gateway.parse(document)
    async with gateway.lifespan(), asyncio.timeout(10):
        serving = asyncio.ensure_future(gateway(scope, receive, send))
        await up.closed.wait()
        left.set()
        await serving
    assert len(up.heads) == 1
