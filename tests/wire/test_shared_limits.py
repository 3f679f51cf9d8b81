"""Limits in a Redis that comes and goes under traffic, over real processes and sockets."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.processes import gateway
from tests.redis_server import RedisServer
from tests.wire.conftest import Answer, Behind, Caller, Front, raw

ON_ERROR = ("open", "closed", "local")
LIMITS: dict[str, dict[str, Any]] = {
    "rate_limit": {"limit": "1000000/minute"},
    "early_rate_limit": {"limit": "1000000/minute", "count": "failures"},
    "quota": {"limit": 1_000_000, "by": "ip"},
    "concurrency": {"limit": 4},
}


def limited(name: str, on_error: str) -> dict[str, Any]:
    component = {name: {**LIMITS[name], "on_error": on_error}}
    path = f"/{name}/{on_error}"
    return {"name": f"{name}.{on_error}", "path": path, "upstream": "up", "components": [component]}


ROUTES = [limited(name, on_error) for name in LIMITS for on_error in ON_ERROR]


@asynccontextmanager
async def line(port: int) -> AsyncIterator[Caller]:
    caller = Caller(*await asyncio.open_connection("127.0.0.1", port))
    yield caller
    caller.leave()


@pytest.mark.parametrize("how", ["kill", "freeze"])
async def test_a_store_that_goes_under_traffic_does_what_on_error_says_and_comes_back(
    tmp_path: Path, redis: RedisServer, how: str
) -> None:
    """P41, P42: no other answer than 200 and, where that is wanted, 503; whatever is in flight as it goes."""
    heard: dict[str, list[tuple[float, int]]] = {route["path"]: [] for route in ROUTES}
    stop = False

    async def traffic(port: int, path: str) -> None:
        async with line(port) as caller:
            while not stop:
                began = time.monotonic()
                heard[path].append((began, (await caller.ask(path)).status))
                await asyncio.sleep(0.01)

    async def until(path: str, status: int) -> None:
        async with asyncio.timeout(15):
            while not heard[path] or heard[path][-1][1] != status:
                await asyncio.sleep(0.005)

    async with raw() as up:
        document = {
            # Longer than what a busy machine takes for an answer: until it is frozen, none is late.
            "store": {"url": redis.url, "timeout": "250ms"},
            "upstreams": {"up": {"targets": [up.url]}},
            "routes": ROUTES,
        }
        async with gateway(tmp_path, document) as one:
            tasks = [asyncio.create_task(traffic(one.port, path)) for path in heard for _ in range(2)]
            for path in heard:
                await until(path, 200)
            getattr(redis, how)()
            gone = time.monotonic()
            for name in LIMITS:
                await until(f"/{name}/closed", 503)
            # Long enough for the store to be asked in vain.
            await asyncio.sleep(1.2)
            redis.start() if how == "kill" else redis.thaw()
            for name in LIMITS:
                await until(f"/{name}/closed", 200)
            stop = True
            await asyncio.gather(*tasks)
            said = [text for text in one.err if "the store is" in text]
    for path, answers in heard.items():
        statuses = {status for began, status in answers}
        assert statuses == ({200, 503} if path.endswith("closed") else {200}), path
        assert all(status == 200 for began, status in answers if began < gone - 1), path
    assert ["away" in text for text in said] == [True, False], said


async def test_four_workers_admit_exactly_the_limit_while_the_file_is_read_again(
    tmp_path: Path, redis: RedisServer
) -> None:
    common = {"by": "header:x-app", "on_error": "closed"}
    limits: dict[str, dict[str, Any]] = {
        window: {"rate_limit": {"limit": "20/hour", "window": window, **common}}
        for window in ("fixed", "sliding", "moving", "bucket")
    }
    limits["quota"] = {"quota": {"limit": 20, **common}}
    seen: Counter[tuple[str, int]] = Counter()

    async def ask(port: int, name: str) -> None:
        async with line(port) as caller:
            for _ in range(3):
                seen[name, (await caller.ask(f"/{name}", "X-App: one")).status] += 1

    async with raw() as up:
        document: dict[str, Any] = {
            "store": {"url": redis.url, "timeout": "5s"},
            "server": {"listen": "127.0.0.1:0", "drain": "0s"},
            "upstreams": {"up": {"targets": [up.url]}},
            "routes": [
                {"name": name, "path": f"/{name}", "upstream": "up", "components": [limit]}
                for name, limit in limits.items()
            ],
        }
        async with gateway(tmp_path, document, "--workers", "4") as one:
            for turn in range(2):
                more = {"name": f"more{turn}", "path": f"/{turn}", "upstream": "up"}
                one.write({**document, "routes": [*document["routes"], more]})
                one.signal(signal.SIGHUP)
                await asyncio.gather(*(ask(one.port, name) for name in [*limits] * 8))
                await one.says("the configuration was read again", turn + 1)
    assert seen == {(name, status): 20 if status == 200 else 28 for name in limits for status in (200, 429)}


async def test_who_leaves_while_delayed_takes_nothing_along(front: Front, upstream: Behind) -> None:
    """Also not the place of the one request that may wait."""
    up = await upstream()
    limit = {"limit": "1/second", "window": "bucket", "delay": "10s", "max_delayed": 1}
    serving = await front(up, route={"components": [{"rate_limit": limit}]})
    caller = await serving.caller()
    assert (await caller.ask("/first")).status == 200
    caller.say("/leaves")
    while len(active(serving)) < 1:
        await asyncio.sleep(0.001)
    # There is one place, and it is taken.
    assert (await (await serving.caller()).ask("/refused")).status == 429
    caller.leave()
    while active(serving):
        await asyncio.sleep(0.001)
    answer: Answer = await (await serving.caller()).ask("/waits")
    assert answer.status == 200
    assert [head.split()[1] for head in up.heads] == [b"/first", b"/waits"]


def active(serving: Any) -> list[Any]:
    return [exchange for live in serving.gateway._lives for exchange in live.active]
