"""What a caller gets when an upstream fails, over real sockets."""

import asyncio
import json
from typing import Any

import pytest

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send, answer
from asgi_gateway.component import Build, Component
from asgi_gateway.endpoint import Endpoint
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.gateway import Gateway
from asgi_gateway.hookspecs import hookimpl
from asgi_gateway.stage import Stage
from asgi_gateway.testing import HandClock

from .conftest import OK, Answer, Behind, Line, Raw, Serving, served
from .test_retries import BUSY, FAULTS, LARGE, busy, closes, nowhere, silent
from .test_websocket import HANDSHAKE

FIXED = {"answer": {"body": '{"items": []}', "headers": {"X-Source": "default"}}}


class Told:
    """A plugin that keeps what became of each request."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, str, Any]] = []

    @hookimpl
    def gateway_components(self) -> list[type[Component]]:
        told = self

        class Remember(Component, name="remember", stage=Stage.OBSERVE):
            """Remembers."""

            def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
                async def remember(scope: Scope, receive: Receive, send: Send) -> None:
                    exchange: Exchange = scope[EXCHANGE]
                    exchange.on_end(lambda one: told.ends.append((one.outcome, one.cause, one.tags)))
                    await app(scope, receive, send)

                return remember

        class Stores(Component, name="stores", stage=Stage.CACHE):
            """A cache that has something old."""

            def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
                async def old(scope: Scope, send: Send) -> None:
                    await answer(scope, send, 200, b"old", content_type=b"text/plain")

                async def stores(scope: Scope, receive: Receive, send: Send) -> None:
                    scope[EXCHANGE].stale = old
                    await app(scope, receive, send)

                return stores

        return [Remember, Stores]


def document(up: Raw, *others: Any, spare: Raw | None = None, stores: bool = False, **options: Any) -> Any:
    upstreams: dict[str, Any] = {
        "up": {
            "targets": [up.url],
            "components": [{"fallback": options}, *others],
            "ejection": None,
            "timeout": {"head": "200ms"},
        }
    }
    if spare is not None:
        upstreams["spare"] = {"targets": [spare.url], "ejection": None}
    components = ["remember", *(["stores"] if stores else [])]
    return {
        "upstreams": upstreams,
        "routes": [{"name": "all", "path": "/*", "upstream": "up", "components": components}],
    }


async def ask(declared: Any, told: Told | None = None, **request: Any) -> Answer:
    async with served(Gateway.parse(declared, plugins=[told or Told()])) as serving:
        return await (await serving.caller()).ask(**request)


def body_of(answer: Answer) -> tuple[int, bytes, list[bytes]]:
    return answer.status, answer.body, answer.all(b"x-fallback")


@pytest.mark.parametrize("fault", ["refused", *FAULTS])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_fixed_answer_stands_in_for_a_failure(upstream: Behind, fault: str, method: str) -> None:
    up, told = nowhere() if fault == "refused" else await upstream(FAULTS[fault]), Told()
    got = await ask(document(up, **FIXED), told, method=method, body=b"x" if method == "POST" else b"")
    assert body_of(got) == (200, b'{"items": []}', [b"answer"])
    assert got.all(b"content-type") == [b"application/json"]
    assert (got.all(b"cache-control"), got.all(b"x-source")) == ([b"no-store"], [b"default"])
    reasons = {"refused": "connect_failed", "closes": "reset", "silent": "head_timeout"}
    cause = {**reasons, "babbles": "protocol_error", "busy": "bad_status"}[fault]
    assert told.ends == [("answered", cause, {"fallback": "answer"})]


async def test_what_goes_well_is_not_touched(upstream: Behind) -> None:
    told = Told()
    assert body_of(await ask(document(await upstream(), **FIXED), told)) == (200, b"ok", [])
    assert told.ends == [("answered", "", None)]


@pytest.mark.parametrize(("options", "status"), [({"on": ["open"]}, 502), ({"statuses": [500]}, 503)])
async def test_it_mends_only_what_it_is_for(upstream: Behind, options: Any, status: int) -> None:
    up = await upstream(closes if status == 502 else busy)
    got = await ask(document(up, **FIXED, **options))
    assert (got.status, got.all(b"x-fallback")) == (status, [])


async def test_an_answer_that_breaks_is_cut(upstream: Behind) -> None:
    async def breaks(line: Line) -> None:
        await line.head()
        line.say(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome")

    declared = document(await upstream(breaks), **FIXED)
    async with served(Gateway.parse(declared, plugins=[Told()])) as serving:
        caller = await serving.caller()
        caller.say()
        assert (await caller.head()).status == 200
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await caller.reader.readexactly(100)


async def test_an_open_circuit_and_a_full_bulkhead_are_failures_too(upstream: Behind) -> None:
    up = await upstream(silent)
    others = [{"breaker": {"failures": 1}}]
    async with served(Gateway.parse(document(up, *others, **FIXED), plugins=[told := Told()])) as serving:
        for _ in range(2):
            assert (await (await serving.caller()).ask()).all(b"x-fallback") == [b"answer"]
    assert [cause for _, cause, _ in told.ends] == ["head_timeout", "circuit_open"]
    assert len(up.heads) == 1


async def test_it_helps_after_the_last_attempt(upstream: Behind) -> None:
    async def always(line: Line) -> None:
        while True:
            await line.head()
            line.say(BUSY)

    up = await upstream(always)
    got = await ask(document(up, {"retry": {"attempts": 3, "back_off": "0s"}}, **FIXED))
    assert body_of(got)[2] == [b"answer"]
    assert len(up.heads) == 3


@pytest.mark.parametrize("fault", ["refused", *FAULTS])
async def test_another_upstream_answers(upstream: Behind, fault: str) -> None:
    up, spare = nowhere() if fault == "refused" else await upstream(FAULTS[fault]), await upstream()
    told = Told()
    assert body_of(await ask(document(up, spare=spare, upstream="spare"), told)) == (
        200,
        b"ok",
        [b"upstream"],
    )
    assert told.ends[0][0] == "answered"
    assert told.ends[0][2] == {"fallback": "upstream"}
    assert len(spare.heads) == 1


async def test_another_upstream_gets_the_whole_body(upstream: Behind) -> None:
    got = bytearray()

    async def takes(line: Line) -> None:
        head = (await line.head()).lower()
        size = int(head.partition(b"content-length: ")[2].partition(b"\r")[0])
        got.extend(await line.reader.readexactly(size))
        line.say(OK)

    body = bytes(range(256)) * 100
    declared = document(await upstream(closes), spare=await upstream(takes), upstream="spare")
    assert (await ask(declared, method="PUT", body=body)).status == 200
    assert bytes(got) == body


@pytest.mark.parametrize(
    ("method", "body", "up", "hits"),
    [
        ("POST", b"x", "closes", 0),
        ("POST", b"x", "busy", 0),
        ("POST", b"x", "refused", 1),
        ("PUT", LARGE, "closes", 0),
        ("PUT", b"x", "closes", 1),
    ],
)
async def test_another_upstream_gets_nothing_twice(
    upstream: Behind, method: str, body: bytes, up: str, hits: int
) -> None:
    first, spare = nowhere() if up == "refused" else await upstream(FAULTS[up]), await upstream()
    got = await ask(document(first, spare=spare, upstream="spare", max_body="1KiB"), method=method, body=body)
    assert (got.status == 200, len(spare.heads)) == (hits == 1, hits)


@pytest.mark.parametrize("fault", ["refused", "busy"])
async def test_if_both_fail_there_is_the_fixed_answer_or_what_the_other_said(
    upstream: Behind, fault: str
) -> None:
    for fixed in ({}, FIXED):
        spare = nowhere() if fault == "refused" else await upstream(busy)
        got = await ask(document(await upstream(closes), spare=spare, upstream="spare", **fixed))
        status = 200 if fixed else {"refused": 502, "busy": 503}[fault]
        assert (got.status, got.all(b"x-fallback")) == (status, [b"answer" if fixed else b"upstream"])


async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http", "it has no lifespan"
    await receive()
    await asyncio.Event().wait()


@pytest.mark.parametrize(("method", "hits"), [("POST", 0), ("PUT", 1)])
async def test_what_an_app_may_have_done_is_not_done_by_another_upstream(
    upstream: Behind, method: str, hits: int
) -> None:
    spare = await upstream()
    declared = document(spare, spare=spare, upstream="spare")
    declared["upstreams"]["up"]["targets"] = [{"asgi": "tests.wire.test_fallbacks:hangs"}]
    declared["upstreams"]["up"]["timeout"] = {"total": "50ms"}
    got = await ask(declared, method=method, body=b"order")
    assert (got.status, len(spare.heads)) == (200 if hits else 504, hits)


async def test_another_upstream_has_a_time_of_its_own(upstream: Behind) -> None:
    async def late(line: Line) -> None:
        await line.head()
        await asyncio.sleep(0.15)
        line.say(OK)

    declared = document(await upstream(silent), spare=await upstream(late), upstream="spare")
    declared["upstreams"]["up"]["timeout"] = {"total": "60ms"}
    assert (await ask(declared)).body == b"ok"


async def test_a_stored_answer_goes_first(upstream: Behind) -> None:
    up, spare, told = await upstream(closes), await upstream(), Told()
    declared = document(up, spare=spare, stores=True, stale=True, upstream="spare")
    assert body_of(await ask(declared, told)) == (200, b"old", [b"stale"])
    assert told.ends == [("answered", "reset", {"fallback": "stale"})]
    assert not spare.heads


async def test_a_stored_answer_is_not_for_a_post(upstream: Behind) -> None:
    got = await ask(document(await upstream(closes), stores=True, stale=True), method="POST", body=b"x")
    assert got.status == 502


async def test_a_caller_who_leaves_another_upstream_leaves_it(upstream: Behind) -> None:
    spare = await upstream(silent)
    declared = document(await upstream(closes), spare=spare, upstream="spare")
    async with served(Gateway.parse(declared, plugins=[Told()])) as serving:
        caller = await serving.caller()
        caller.say()
        while not spare.heads:
            await asyncio.sleep(0.001)
        caller.leave()
        await spare.closed.wait()


async def test_the_mark_of_an_upstream_is_not_believed(upstream: Behind) -> None:
    async def marks(line: Line) -> None:
        await line.head()
        line.say(OK.replace(b"\r\n\r\n", b"\r\nx-fallback: answer\r\n\r\n"))

    declared = document(await upstream(closes), spare=await upstream(marks), upstream="spare")
    assert (await ask(declared)).all(b"x-fallback") == [b"upstream"]


async def test_a_failed_handshake_is_told_to_the_caller(upstream: Behind) -> None:
    declared = document(await upstream(busy), **FIXED)
    declared["routes"][0] |= {"websocket": True, "components": []}
    async with served(Gateway.parse(declared)) as serving:
        caller = await serving.caller()
        caller.say("/", *HANDSHAKE)
        assert (await caller.answer()).status == 503


# Faults on demand


def faulty(up: Raw, *others: Any, **options: Any) -> dict[str, Any]:
    return {
        "upstreams": {
            "up": {
                "targets": [up.url],
                "timeout": {"head": "5s"},
                "components": [{"fault": options}, *others],
            }
        },
        "routes": [{"name": "all", "path": "/*", "upstream": "up", "websocket": True}],
    }


@pytest.mark.parametrize(
    ("abort", "told"),
    [
        (503, (503, "injected_fault")),
        ("connect_failed", (502, "connect_failed")),
        ("reset", (502, "reset")),
    ],
)
async def test_calls_fail_on_demand(upstream: Behind, abort: Any, told: tuple[int, str]) -> None:
    up = await upstream()
    async with served(Gateway.parse(faulty(up, abort=abort))) as serving:
        got = await (await serving.caller()).ask()
    assert (got.status, json.loads(got.body)["reason"]) == told
    assert not up.heads


async def test_what_stands_outside_sees_the_faults(upstream: Behind) -> None:
    up = await upstream()
    others = [{"breaker": {"failures": 3}}, {"retry": {"attempts": 2, "back_off": "0s"}}]
    async with served(Gateway.parse(faulty(up, *others, abort=503))) as serving:
        reasons = [json.loads((await (await serving.caller()).ask()).body)["reason"] for _ in range(3)]
    assert reasons == ["injected_fault", "circuit_open", "circuit_open"]


async def test_a_part_of_the_calls_fails_and_the_dial_turns_it(upstream: Behind) -> None:
    up = await upstream()
    gateway = Gateway.parse(faulty(up, abort=503, abort_percent=50))
    async with served(gateway) as serving:
        caller = await serving.caller()
        statuses = [(await caller.ask()).status for _ in range(200)]
        assert 50 < statuses.count(503) < 150
        gateway.dial("upstream/up/fault/abort_percent").set(0)
        assert {(await caller.ask()).status for _ in range(50)} == {200}


async def test_a_delay_is_that_of_a_slow_target(upstream: Behind) -> None:
    up, clock = await upstream(), HandClock()
    async with served(Gateway.parse(faulty(up, delay="1h"), clock=clock)) as serving:
        caller = await serving.caller()
        caller.say()
        await held(serving)
        clock.advance(5.1)
        got = await caller.answer()
    assert (got.status, json.loads(got.body)["reason"]) == (504, "head_timeout")
    assert not up.heads


async def held(serving: Serving) -> None:
    """Until a request is at its delay."""
    while not any(call.waiter for one in serving.gateway._live.active for call in one.calls):
        await asyncio.sleep(0.001)


async def test_a_short_delay_ends(upstream: Behind) -> None:
    up, now = await upstream(), asyncio.get_running_loop().time
    async with served(Gateway.parse(faulty(up, delay="30ms"))) as serving:
        began = now()
        assert (await (await serving.caller()).ask()).status == 200
        assert now() - began >= 0.03


async def test_who_leaves_in_a_delay_is_gone(upstream: Behind) -> None:
    up = await upstream()
    async with served(Gateway.parse(faulty(up, delay="1h"))) as serving:
        caller = await serving.caller()
        caller.say()
        await held(serving)
        caller.leave()
        while serving.gateway._live.active:
            await asyncio.sleep(0.001)
    assert not up.heads


async def test_handshakes_fail_on_demand(upstream: Behind) -> None:
    up = await upstream()
    async with served(Gateway.parse(faulty(up, abort=503))) as serving:
        caller = await serving.caller()
        caller.say("/", *HANDSHAKE)
        assert (await caller.answer()).status == 503
    assert not up.heads


class Hides(Endpoint, name="hides"):
    """An endpoint that makes something else of what comes out of `send`."""

    raises: bool
    """Whether it raises at all."""

    def open(self, build: Build) -> ASGIApp:
        async def hides(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await answer(scope, send, 503, b"busy")
            except Exception as error:
                if self.raises:
                    raise ValueError("something failed") from error

        return hides


class Endpoints:
    @hookimpl
    def gateway_endpoints(self) -> list[type[Endpoint]]:
        return [Hides]


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("retry", [False, True])
async def test_an_endpoint_cannot_hide_that_its_answer_was_discarded(raises: bool, retry: bool) -> None:
    components: list[Any] = [{"fallback": FIXED}, *(["retry"] if retry else [])]
    declared = {
        "upstreams": {"up": {"endpoint": {"hides": {"raises": raises}}, "components": components}},
        "routes": [{"name": "all", "path": "/*", "upstream": "up"}],
    }
    async with served(Gateway.parse(declared, plugins=[Endpoints()])) as serving:
        assert body_of(await (await serving.caller()).ask())[2] == [b"answer"]
