"""Breakers in front of real sockets: which calls count, how many try, and what survives."""

import asyncio
import json
from typing import Any

import pytest

from asgi_gateway.gateway import Gateway
from asgi_gateway.testing import HandClock

from .conftest import OK, Behind, Line, Serving, served
from .test_retries import BUSY, closes, nowhere, silent
from .test_websocket import HANDSHAKE, Target


def document(*urls: str, timeout: Any = None, retry: Any = None, **options: Any) -> dict[str, Any]:
    components: list[Any] = [{"breaker": options}]
    if retry is not None:
        components.append({"retry": {"back_off": "0s", **retry}})
    return {
        "upstreams": {
            "up": {
                "targets": list(urls),
                "components": components,
                "ejection": None,
                "timeout": timeout or {},
                "websocket": {"ping": None},
            }
        },
        "routes": [
            {"name": "all", "path": "/*", "upstream": "up", "websocket": True},
            {"name": "other", "path": "/other", "upstream": "up"},
        ],
    }


def gateway(*urls: str, clock: HandClock | None = None, **options: Any) -> Gateway:
    return Gateway.parse(document(*urls, **options), clock=clock)


async def outcome(serving: Serving, path: str = "/", **request: Any) -> str:
    answer = await (await serving.caller()).ask(path, **request)
    if (b"content-type", b"application/problem+json") in answer.headers:
        return str(json.loads(answer.body)["reason"])
    return str(answer.status)


class Switch:
    """An upstream that answers, fails, or waits, as it is told."""

    def __init__(self) -> None:
        self.answer = OK
        self.waits = False
        self.begun = 0
        self.go = asyncio.Event()

    async def __call__(self, line: Line) -> None:
        while True:
            await line.head()
            self.begun += 1
            if self.waits:
                await self.go.wait()
            line.say(self.answer)


async def test_an_upstream_that_is_down_is_not_asked_any_more() -> None:
    async with served(gateway(nowhere().url, failures=3, open_for="10s")) as serving:
        assert [await outcome(serving) for _ in range(5)] == ["connect_failed"] * 3 + ["circuit_open"] * 2


@pytest.mark.parametrize(
    ("script", "reason"), [(closes, "reset"), (silent, "head_timeout")], ids=["closes", "silent"]
)
async def test_what_ends_without_an_answer_has_failed(upstream: Behind, script: Any, reason: str) -> None:
    up = await upstream(script)
    async with served(gateway(up.url, failures=2, timeout={"head": "200ms"})) as serving:
        assert [await outcome(serving) for _ in range(3)] == [reason, reason, "circuit_open"]
    assert len(up.heads) == 2


async def test_a_deadline_that_passes_is_a_failure(upstream: Behind) -> None:
    up = await upstream(silent)
    async with served(gateway(up.url, failures=2, timeout={"total": "50ms"})) as serving:
        assert [await outcome(serving) for _ in range(3)] == ["total_timeout"] * 2 + ["circuit_open"]


async def test_a_caller_who_is_late_with_the_body_is_no_failure(upstream: Behind) -> None:
    async def takes(line: Line) -> None:
        await line.head()
        await line.gone()

    up, clock = await upstream(takes), HandClock()
    async with served(gateway(up.url, clock=clock, failures=1, timeout={"total": "5s"})) as serving:
        for late in range(1, 3):
            caller = await serving.caller()
            caller.writer.write(b"POST / HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 10\r\n\r\n12345")
            while len(up.heads) < late:
                await asyncio.sleep(0.001)
            clock.advance(5.1)
            assert json.loads((await caller.answer()).body)["reason"] == "total_timeout"
    assert len(up.heads) == 2


BROKEN = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"


async def test_an_answer_that_breaks_has_failed(upstream: Behind) -> None:
    async def breaks(line: Line) -> None:
        await line.head()
        line.say(BROKEN)

    up = await upstream(breaks)
    async with served(gateway(up.url, failures=2)) as serving:
        for _ in range(2):
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                await outcome(serving)
        assert await outcome(serving) == "circuit_open"


async def test_a_stream_that_ends_early_has_not_failed(upstream: Behind) -> None:
    async def streams(line: Line) -> None:
        await line.head()
        line.say(BROKEN.replace(b"\r\n\r\n", b"\r\ncontent-type: text/event-stream\r\n\r\n"))

    up = await upstream(streams)
    async with served(gateway(up.url, failures=1)) as serving:
        for _ in range(3):
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                await outcome(serving)
    assert len(up.heads) == 3


async def test_who_takes_an_answer_slowly_is_no_failure(upstream: Behind) -> None:
    large = 64 * 1024 * 1024

    async def much(line: Line) -> None:
        if b"/large" not in await line.head():
            line.say(OK)
            return
        line.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % large)
        line.say(bytes(large))
        await line.gone()

    up, clock = await upstream(much), HandClock()
    options = {"failures": 1, "timeout": {"total": "5s", "idle": "1h"}}
    async with served(gateway(up.url, clock=clock, **options)) as serving:
        caller = await serving.caller()
        caller.say("/large")
        assert (await caller.head()).status == 200
        await asyncio.sleep(0.2)
        clock.advance(6)
        while serving.gateway._live.active:
            await asyncio.sleep(0.001)
        assert await outcome(serving) == "200"


async def test_a_deadline_that_passes_in_a_queue_is_no_failure(upstream: Behind) -> None:
    async def streams(line: Line) -> None:
        if b"/stream" in await line.head():
            line.say(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
            await line.gone()
        line.say(OK)

    up, clock = await upstream(streams), HandClock()
    declared = document(up.url, failures=1, timeout={"total": "5s", "stream": "1h"})
    declared["upstreams"]["up"]["components"].append({"bulkhead": {"in_flight": 1, "queue": 1, "wait": "1h"}})
    async with served(Gateway.parse(declared, clock=clock)) as serving:
        holder = await serving.caller()
        holder.say("/stream")
        assert (await holder.head()).status == 200
        waiting = asyncio.ensure_future(outcome(serving))
        while len(serving.gateway._live.active) < 2:
            await asyncio.sleep(0.001)
        clock.advance(6)
        assert await waiting == "total_timeout"
        holder.leave()
        while serving.gateway._live.active:
            await asyncio.sleep(0.001)
        assert await outcome(serving) == "200"


async def hangs(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http", "it has no lifespan"
    await asyncio.Event().wait()


@pytest.mark.parametrize("body", [b"", b"body"], ids=["no body", "a body"])
async def test_an_app_that_hangs_has_failed(body: bytes) -> None:
    declared = document(failures=2, timeout={"total": "50ms"})
    declared["upstreams"]["up"]["targets"] = [{"asgi": "tests.wire.test_breakers:hangs"}]
    async with served(Gateway.parse(declared)) as serving:
        said = [await outcome(serving, method="PUT", body=body) for _ in range(3)]
    assert said == ["total_timeout"] * 2 + ["circuit_open"]


async def test_it_opens_answers_when_to_come_back_and_closes_again(upstream: Behind) -> None:
    switch, clock = Switch(), HandClock()
    up = await upstream(switch)
    options = {"minimum_calls": 4, "failure_rate": 0.5, "open_for": "10s", "trials": 2}
    async with served(gateway(up.url, clock=clock, **options)) as serving:
        assert [await outcome(serving) for _ in range(2)] == ["200", "200"]
        switch.answer = BUSY
        assert [await outcome(serving) for _ in range(3)] == ["503", "503", "circuit_open"]
        clock.advance(2.5)
        answer = await (await serving.caller()).ask()
        assert (answer.status, answer.all(b"retry-after")) == (503, [b"8"])
        assert json.loads(answer.body)["component"] == "breaker"
        clock.advance(7.5)
        assert [await outcome(serving) for _ in range(2)] == ["503", "circuit_open"]
        switch.answer = OK
        clock.advance(10)
        assert [await outcome(serving) for _ in range(5)] == ["200"] * 5
        # The failures before it opened are forgotten.
        switch.answer = BUSY
        assert await outcome(serving) == "503"
        assert await outcome(serving) == "503"


async def test_what_a_caller_does_wrong_is_no_failure(upstream: Behind) -> None:
    switch = Switch()
    switch.answer = OK.replace(b"200 OK", b"404 Not Found")
    async with served(gateway((await upstream(switch)).url, failures=1, minimum_calls=1)) as serving:
        assert [await outcome(serving) for _ in range(5)] == ["404"] * 5


async def test_a_slow_upstream_opens_it(upstream: Behind) -> None:
    async def slow(line: Line) -> None:
        while True:
            await line.head()
            await asyncio.sleep(0.03)
            line.say(OK)

    up = await upstream(slow)
    options = {"slow_rate": 0.5, "slow_call": "10ms", "minimum_calls": 3}
    async with served(gateway(up.url, **options)) as serving:
        assert [await outcome(serving) for _ in range(4)] == ["200", "200", "200", "circuit_open"]


async def test_a_flapping_upstream_opens_it_by_rate(upstream: Behind) -> None:
    async def flaps(line: Line) -> None:
        while True:
            await line.head()
            line.say(BUSY if len(line.upstream.heads) % 2 else OK)

    up = await upstream(flaps)
    async with served(gateway(up.url, failures=2, failure_rate=0.5, minimum_calls=10)) as serving:
        outcomes = [await outcome(serving) for _ in range(12)]
    assert outcomes[:10] == ["503", "200"] * 5
    assert outcomes[10:] == ["503", "circuit_open"]


@pytest.mark.parametrize(("bad", "opens"), [(99, False), (100, True)])
async def test_counts_are_exact_under_many_calls_at_once(upstream: Behind, bad: int, opens: bool) -> None:
    """P45: 200 calls at one time, of which so many fail."""
    gate = asyncio.Event()

    async def together(line: Line) -> None:
        while True:
            head = await line.head()
            await gate.wait()
            line.say(BUSY if b" /bad " in head else OK)

    up = await upstream(together)
    async with served(gateway(up.url, failure_rate=0.5, minimum_calls=200)) as serving:
        paths = ["/bad"] * bad + ["/good"] * (200 - bad)
        asked = [asyncio.ensure_future(outcome(serving, path)) for path in paths]
        while len(up.heads) < 200:
            await asyncio.sleep(0.001)
        gate.set()
        assert sorted(await asyncio.gather(*asked)) == ["200"] * (200 - bad) + ["503"] * bad
        # The last of them may have been a good one: only a failure is a reason to look.
        assert await outcome(serving, "/bad") in ("503", "circuit_open")
        assert (await outcome(serving, "/good") == "circuit_open") == opens


async def half_open(serving: Serving, switch: Switch, clock: HandClock) -> None:
    """One failure opens it; the time is over, and whoever tries has to wait."""
    switch.answer = BUSY
    assert await outcome(serving) == "503"
    assert await outcome(serving) == "circuit_open"
    switch.answer, switch.waits, switch.begun = OK, True, 0
    clock.advance(10)


async def test_so_many_try_and_no_more(upstream: Behind) -> None:
    """P44."""
    switch, clock = Switch(), HandClock()
    up = await upstream(switch)
    async with served(gateway(up.url, clock=clock, failures=1, trials=3)) as serving:
        await half_open(serving, switch, clock)
        asked = [asyncio.ensure_future(outcome(serving)) for _ in range(50)]
        done = set[Any]()
        while len(done) < 47:
            done, _ = await asyncio.wait(asked, timeout=0.01)
        assert {task.result() for task in done} == {"circuit_open"}
        while switch.begun < 3:
            await asyncio.sleep(0.001)
        assert await outcome(serving) == "circuit_open"
        switch.go.set()
        assert sorted(await asyncio.gather(*asked)) == ["200"] * 3 + ["circuit_open"] * 47
        assert switch.begun == 3
        assert await outcome(serving) == "200"


async def test_who_leaves_while_trying_gives_the_place_back(upstream: Behind) -> None:
    switch, clock = Switch(), HandClock()
    up = await upstream(switch)
    async with served(gateway(up.url, clock=clock, failures=1, trials=1)) as serving:
        await half_open(serving, switch, clock)
        for tried in range(1, 6):
            caller = await serving.caller()
            caller.say()
            while switch.begun < tried:
                await asyncio.sleep(0.001)
            assert await outcome(serving) == "circuit_open"
            caller.leave()
            while serving.gateway._live.active:
                await asyncio.sleep(0.001)
        switch.waits = False
        assert [await outcome(serving) for _ in range(2)] == ["200", "200"]


async def test_a_trial_whose_time_is_over_opens_it_again(upstream: Behind) -> None:
    switch, clock = Switch(), HandClock()
    up = await upstream(switch)
    options = {"failures": 1, "trials": 1, "timeout": {"head": "5s"}}
    async with served(gateway(up.url, clock=clock, **options)) as serving:
        await half_open(serving, switch, clock)
        trial = asyncio.ensure_future(outcome(serving))
        while not switch.begun:
            await asyncio.sleep(0.001)
        clock.advance(6)
        assert await trial == "head_timeout"
        assert await outcome(serving) == "circuit_open"


async def test_a_reload_leaves_an_open_circuit_open(upstream: Behind) -> None:
    switch, clock = Switch(), HandClock()
    up = await upstream(switch)
    declared = document(up.url, failures=1, statuses=[503])
    async with served(Gateway.parse(declared, clock=clock)) as serving:
        switch.answer = BUSY
        assert [await outcome(serving) for _ in range(2)] == ["503", "circuit_open"]
        for status in (503, 504):
            declared["upstreams"]["up"]["components"][0]["breaker"]["statuses"].append(status)
            await serving.gateway.reload(Gateway.parse(declared).config)
            assert await outcome(serving) == "circuit_open"
        clock.advance(10)
        switch.answer = OK
        assert await outcome(serving) == "200"
    assert switch.begun == 2


@pytest.mark.parametrize(("by", "other"), [("upstream", "circuit_open"), ("route", "200")])
async def test_routes_share_a_circuit_or_have_their_own(upstream: Behind, by: str, other: str) -> None:
    switch = Switch()
    async with served(gateway((await upstream(switch)).url, failures=1, by=by)) as serving:
        switch.answer = BUSY
        assert [await outcome(serving) for _ in range(2)] == ["503", "circuit_open"]
        switch.answer = OK
        assert await outcome(serving, "/other") == other


async def test_every_attempt_counts_and_an_open_circuit_is_not_tried_again(upstream: Behind) -> None:
    switch = Switch()
    switch.answer = BUSY
    up = await upstream(switch)
    options = {"failures": 4, "retry": {"attempts": 3, "budget": {"minimum": 100}}}
    async with served(gateway(up.url, **options)) as serving:
        # The second call is stopped at its second attempt.
        assert [await outcome(serving) for _ in range(3)] == ["503", "circuit_open", "circuit_open"]
    assert switch.begun == 4


async def test_handshakes_count_and_are_refused(upstream: Behind) -> None:
    switch = Switch()
    switch.answer = BUSY
    up = await upstream(switch)
    async with served(gateway(up.url, failures=2)) as serving:
        statuses = []
        for _ in range(3):
            caller = await serving.caller()
            caller.say("/", *HANDSHAKE)
            statuses.append((await caller.answer()).status)
        assert statuses == [503, 503, 503]
        assert switch.begun == 2
        assert await outcome(serving) == "circuit_open"


async def test_a_websocket_is_a_good_trial_as_soon_as_it_is_open(upstream: Behind) -> None:
    clock = HandClock()
    bad = nowhere()
    target = await upstream(Target())
    async with served(gateway(bad.url, target.url, clock=clock, failures=1, trials=1)) as serving:
        assert [await outcome(serving) for _ in range(2)] == ["connect_failed", "circuit_open"]
        clock.advance(10)
        caller = await serving.caller()
        caller.say("/", *HANDSHAKE)
        assert (await caller.head()).status == 101
        # It is still open: the other target has its turn, and is asked.
        assert await outcome(serving) == "connect_failed"
