"""So many calls at one time, over real sockets: a place that is lost is missed at once."""

import asyncio
import json
from typing import Any

import pytest

from asgi_gateway.gateway import Gateway
from asgi_gateway.testing import HandClock

from .conftest import Behind, Caller, Serving, served
from .test_breakers import Switch
from .test_retries import nowhere
from .test_websocket import CLOSE, HANDSHAKE, Target, closing, opened, read, say


def document(url: str, *others: Any, mode: str = "enforce", **options: Any) -> dict[str, Any]:
    return {
        "upstreams": {
            "up": {
                "targets": [url],
                "components": [{"bulkhead": {"in_flight": 1, "mode": mode, **options}}, *others],
                "websocket": {"ping": None},
            }
        },
        "routes": [{"name": "all", "path": "/*", "upstream": "up", "websocket": True}],
    }


def holding() -> Switch:
    switch = Switch()
    switch.waits = True
    return switch


async def asking(serving: Serving) -> Caller:
    caller = await serving.caller()
    caller.say()
    return caller


async def told(caller: Caller) -> str:
    answer = await caller.answer()
    return str(answer.status) if answer.status == 200 else str(json.loads(answer.body)["reason"])


async def until(true: Any) -> None:
    while not true():
        await asyncio.sleep(0.001)


def active(serving: Serving) -> int:
    return len(serving.gateway._live.active)


async def test_what_is_too_much_is_refused_and_a_place_comes_back(upstream: Behind) -> None:
    switch = holding()
    up = await upstream(switch)
    async with served(Gateway.parse(document(up.url, in_flight=2))) as serving:
        held = [await asking(serving) for _ in range(2)]
        await until(lambda: switch.begun == 2)
        answer = await (await serving.caller()).ask()
        assert (answer.status, answer.all(b"retry-after")) == (503, [b"1"])
        problem = json.loads(answer.body)
        assert (problem["reason"], problem["component"]) == ("bulkhead_full", "bulkhead")
        switch.go.set()
        assert [await told(caller) for caller in held] == ["200", "200"]
        assert [await told(await asking(serving)) for _ in range(3)] == ["200"] * 3


async def test_who_waits_is_served_in_the_order_of_coming(upstream: Behind) -> None:
    switch = holding()
    up = await upstream(switch)
    async with served(Gateway.parse(document(up.url, queue=3, wait="1m"))) as serving:
        callers = []
        for number in range(4):
            caller = await serving.caller()
            caller.say(f"/{number}")
            callers.append(caller)
            await until(lambda number=number: active(serving) == number + 1)
        assert await told(await asking(serving)) == "bulkhead_full"
        switch.go.set()
        assert [await told(caller) for caller in callers] == ["200"] * 4
    assert [head.split(b" ")[1] for head in up.heads] == [b"/0", b"/1", b"/2", b"/3"]


async def test_nobody_waits_for_longer_than_that(upstream: Behind) -> None:
    switch, clock = holding(), HandClock()
    up = await upstream(switch)
    async with served(Gateway.parse(document(up.url, queue=1, wait="2s"), clock=clock)) as serving:
        first = await asking(serving)
        await until(lambda: switch.begun)
        second = await asking(serving)
        await until(lambda: active(serving) == 2)
        clock.advance(2.1)
        assert await told(second) == "bulkhead_timeout"
        switch.go.set()
        assert await told(first) == "200"
        assert await told(await asking(serving)) == "200"


async def test_the_deadline_of_the_call_goes_on_while_it_waits(upstream: Behind) -> None:
    switch, clock = holding(), HandClock()
    up = await upstream(switch)
    declared = document(up.url, queue=1, wait="1h")
    declared["upstreams"]["up"]["timeout"] = {"total": "5s", "head": "1h"}
    async with served(Gateway.parse(declared, clock=clock)) as serving:
        first = await asking(serving)
        await until(lambda: switch.begun)
        clock.advance(4)
        second = await asking(serving)
        await until(lambda: active(serving) == 2)
        clock.advance(5.5)
        assert sorted([await told(first), await told(second)]) == ["total_timeout"] * 2


async def test_who_leaves_the_queue_or_the_upstream_takes_no_place_along(upstream: Behind) -> None:
    switch = holding()
    up = await upstream(switch)
    async with served(Gateway.parse(document(up.url, queue=1, wait="1m"))) as serving:
        for round_ in range(1, 4):
            first = await asking(serving)
            await until(lambda round_=round_: switch.begun == 2 * round_ - 1)
            second = await asking(serving)
            await until(lambda: active(serving) == 2)
            second.leave()
            await until(lambda: active(serving) == 1)
            third = await asking(serving)
            await until(lambda: active(serving) == 2)
            first.leave()
            # The place of the first is the third's now.
            await until(lambda round_=round_: switch.begun == 2 * round_)
            third.leave()
            await until(lambda: active(serving) == 0)
        switch.waits = False
        assert await told(await asking(serving)) == "200"


async def test_a_failure_gives_the_place_back() -> None:
    async with served(Gateway.parse(document(nowhere().url))) as serving:
        assert [await told(await asking(serving)) for _ in range(3)] == ["connect_failed"] * 3


async def test_a_websocket_holds_its_place_until_its_end(upstream: Behind) -> None:
    up = await upstream(Target())
    async with served(Gateway.parse(document(up.url))) as serving:
        caller = await opened(serving)
        refused = await serving.caller()
        refused.say("/", *HANDSHAKE)
        assert (await refused.answer()).status == 503
        await say(caller, CLOSE, closing(1000))
        await read(caller.reader)
        await until(lambda: active(serving) == 0)
        assert serving.gateway._live.active == set()
    assert len(up.heads) == 1


async def test_a_reload_changes_the_numbers_and_nobody_loses_a_place(upstream: Behind) -> None:
    switch = holding()
    up = await upstream(switch)
    async with served(Gateway.parse(document(up.url, queue=5, wait="1m"))) as serving:
        callers = [await asking(serving) for _ in range(3)]
        await until(lambda: active(serving) == 3 and switch.begun == 1)
        more = Gateway.parse(document(up.url, in_flight=2, queue=1, wait="1m")).config
        await serving.gateway.reload(more)
        await until(lambda: switch.begun == 2)
        assert await told(await asking(serving)) == "bulkhead_full"
        less = Gateway.parse(document(up.url, in_flight=1, queue=0)).config
        await serving.gateway.reload(less)
        switch.go.set()
        assert [await told(caller) for caller in callers] == ["200"] * 3
        switch.go.clear()
        held = await asking(serving)
        await until(lambda: switch.begun == 4)
        assert await told(await asking(serving)) == "bulkhead_full"
        switch.go.set()
        assert await told(held) == "200"


async def test_a_refusal_is_no_failure_to_a_breaker(upstream: Behind) -> None:
    switch = holding()
    up = await upstream(switch)
    async with served(Gateway.parse(document(up.url, {"breaker": {"failures": 1}}))) as serving:
        held = await asking(serving)
        await until(lambda: switch.begun)
        assert [await told(await asking(serving)) for _ in range(2)] == ["bulkhead_full"] * 2
        switch.go.set()
        assert await told(held) == "200"


@pytest.mark.parametrize("queue", [0, 1])
async def test_reporting_lets_pass(upstream: Behind, queue: int) -> None:
    switch, clock = holding(), HandClock()
    up = await upstream(switch)
    declared = document(up.url, mode="report", queue=queue, wait="1s")
    async with served(Gateway.parse(declared, clock=clock)) as serving:
        callers = [await asking(serving) for _ in range(3)]
        await until(lambda: active(serving) == 3)
        clock.advance(1.5)
        await until(lambda: switch.begun == 3)
        (reported,) = {
            refusal.reason for one in serving.gateway._live.active for refusal in one.reported or ()
        } - {"bulkhead_full"} or {"bulkhead_full"}
        assert reported == ("bulkhead_timeout" if queue else "bulkhead_full")
        switch.go.set()
        assert [await told(caller) for caller in callers] == ["200"] * 3
