"""Which target gets a request, over real sockets."""

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import pytest

from asgi_gateway.gateway import Gateway
from tests.wire.conftest import Behind, Line, Serving, served
from tests.wire.test_upstreams import front_of, named


def slow(name: bytes, seconds: float) -> Any:
    async def script(line: Line) -> None:
        while True:
            await line.head()
            await asyncio.sleep(seconds)
            line.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(name), name))

    return script


async def failing(line: Line) -> None:
    while True:
        await line.head()
        line.say(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 3\r\n\r\nbad")


async def counted(serving: Serving, times: int, callers: int = 4) -> Counter[bytes]:
    async def ask() -> list[bytes]:
        caller = await serving.caller()
        return [(await caller.ask()).body for _ in range(times // callers)]

    lists = await asyncio.gather(*(ask() for _ in range(callers)))
    return Counter(body for bodies in lists for body in bodies)


@pytest.mark.parametrize("balancer", ["round_robin", "random", "least_requests"])
async def test_weights_are_kept_within_five_percent(
    balancer: str, upstream: Behind, stack: AsyncExitStack
) -> None:
    ups = [await upstream(named(name)) for name in (b"a", b"b", b"c")]
    targets = [{"url": up.url, "weight": weight} for up, weight in zip(ups, (1, 3, 0), strict=True)]
    document = {
        "upstreams": {"up": {"targets": targets, "balancer": balancer}},
        "routes": [{"name": "all", "path": "/*", "upstream": "up"}],
    }
    gateway = Gateway.parse(document, dice=random.Random(7))
    counts = await counted(await stack.enter_async_context(served(gateway)), 500, callers=1)
    assert counts[b"c"] == 0
    assert abs(counts[b"a"] / 500 - 0.25) <= 0.05


async def test_the_slow_one_gets_less(upstream: Behind, stack: AsyncExitStack) -> None:
    ups = [await upstream(slow(b"slow", 0.2)), await upstream(named(b"a")), await upstream(named(b"b"))]
    serving = await front_of(stack, targets=[up.url for up in ups], balancer="p2c_ewma")
    counts = await counted(serving, 300)
    assert counts[b"slow"] <= 50
    assert min(counts[b"a"], counts[b"b"]) > 50


async def test_the_one_that_fails_at_once_draws_nobody(upstream: Behind, stack: AsyncExitStack) -> None:
    ups = [await upstream(failing), await upstream(slow(b"a", 0.002)), await upstream(slow(b"b", 0.002))]
    serving = await front_of(stack, targets=[up.url for up in ups], balancer="p2c_ewma", ejection=None)
    counts = await counted(serving, 200)
    assert counts[b"bad"] <= 33


async def test_a_local_app_is_timed_too(upstream: Behind, stack: AsyncExitStack) -> None:
    up = await upstream(slow(b"slow", 0.2))
    targets = [up.url, {"asgi": "tests.wire.test_upstreams:app"}]
    counts = await counted(await front_of(stack, targets=targets, balancer="p2c_ewma"), 200)
    assert counts[b"slow"] <= 50


async def test_the_same_caller_comes_to_the_same_target(upstream: Behind, stack: AsyncExitStack) -> None:
    ups = [await upstream(named(b"%d" % number)) for number in range(4)]
    options = {"balancer": "consistent_hash", "hash": {"by": "header:X-Tenant"}}
    serving = await front_of(stack, targets=[up.url for up in ups], **options)
    one, other = await serving.caller(), await serving.caller()
    where = {}
    for tenant in range(60):
        bodies = [(await caller.ask("/", f"X-Tenant: {tenant}")).body for caller in (one, other, one)]
        assert len(set(bodies)) == 1
        where[tenant] = bodies[0]
    assert set(where.values()) == {b"0", b"1", b"2", b"3"}
    await serving.gateway.reload(serving.gateway.config)
    for tenant, body in where.items():
        assert (await one.ask("/", f"X-Tenant: {tenant}")).body == body


async def test_one_caller_does_not_overload_its_target(upstream: Behind, stack: AsyncExitStack) -> None:
    async def hangs(line: Line) -> None:
        await line.head()
        await line.gone()

    ups = [await upstream(hangs) for _ in range(4)]
    options = {"balancer": "consistent_hash", "hash": {"by": "ip", "load": 1.25}}
    serving = await front_of(stack, targets=[up.url for up in ups], **options)
    for number in range(40):
        (await serving.caller()).say()
        async with asyncio.timeout(5):
            while sum(len(up.heads) for up in ups) <= number:
                await asyncio.sleep(0.001)
    assert max(len(up.heads) for up in ups) <= 15


async def test_a_sticky_caller_stays_until_its_target_is_gone(
    upstream: Behind, stack: AsyncExitStack
) -> None:
    dies = asyncio.Event()

    async def mortal(line: Line) -> None:
        await named(b"a")(line) if not dies.is_set() else None

    ups = [await upstream(mortal), await upstream(named(b"b"))]
    serving = await front_of(
        stack,
        targets=[up.url for up in ups],
        sticky={"secret": "s"},
        ejection={"failures": 1, "duration": "1h"},
        pool={"max_requests": 1},
    )
    caller = await serving.caller()
    first = await caller.ask()
    (line,) = first.all(b"set-cookie")
    mine = f"Cookie: {line.partition(b';')[0].decode()}"
    assert first.body == b"a"
    for _ in range(6):
        again = await caller.ask("/", mine)
        assert (again.body, again.all(b"set-cookie")) == (b"a", [])
    assert str(ups[0].port).encode() not in line
    dies.set()
    await caller.ask("/", mine, method="POST", body=b"x")
    moved = await caller.ask("/", mine)
    assert (moved.body, len(moved.all(b"set-cookie"))) == (b"b", 1)
