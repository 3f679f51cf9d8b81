"""rate_limit in a store that workers share, over a real Redis."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from math import ceil
from time import monotonic
from typing import Any

import httpx
import pytest

from asgi_gateway.gateway import Gateway
from asgi_gateway.store import MemoryStore, Script, Store
from asgi_gateway_contrib.redis import RedisStore
from asgi_gateway_plugins.rate_limit.limiter import WindowKind
from asgi_gateway_plugins.rate_limit.shared import HEAD, script
from tests.plugins.kit import Hand, Upstreams, client, document, serving
from tests.redis_server import RedisServer

WINDOWS: list[WindowKind] = ["fixed", "sliding", "moving", "bucket"]
CLOCK = "local time = redis.call('TIME')\nlocal now = time[1] * 1000000 + time[2]\n"


@pytest.fixture
async def store(redis: RedisServer) -> AsyncIterator[Store]:
    store = RedisStore.open(redis.url, timeout=5, now=monotonic)
    yield store
    await store.aclose()


def at(window: WindowKind, microseconds: int) -> Script:
    """The script of a window at a moment that a test chooses."""
    real = script(window)
    assert CLOCK in HEAD
    return Script(real.name, real.lua.replace(CLOCK, f"local now = {microseconds}\n"), real.twin)


def steps(seed: int) -> Iterator[tuple[int, int, int]]:
    """Pauses in microseconds, costs, and whether they count; the same for the same seed."""
    import random

    dice = random.Random(seed)
    for _ in range(40):
        pause = dice.choice([0, 0, 1, dice.randrange(3_000_000), dice.randrange(15_000_000)])
        yield pause, dice.choice([1, 1, 1, 2, 3]), dice.choice([1, 1, 1, 0])


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("seed", range(4))
async def test_the_script_decides_as_its_twin(store: Store, window: WindowKind, seed: int) -> None:
    """Two rules at once; Redis forgets by its own clock, which stands still beside this one."""
    clock = Hand()
    memory = MemoryStore(lambda: clock.seconds)
    now = 1_700_000_000_000_000
    for pause, cost, take in steps(seed):
        now += pause
        clock.seconds += pause / 1e6
        args = [cost, take, 5, 10, 4, 8, 60, 8]
        script_now = at(window, now)
        decided = await store.run(script_now, ["a/5", "a/8"], args)
        modelled = await memory.run(script_now, ["a/5", "a/8"], args)
        assert decided[0] == modelled[0]
        assert decided[2::2] == modelled[2::2]
        # The twin says whole seconds, rounded up, from a clock in floats. Where nothing is counted, when it
        # begins means nothing.
        for left, most, one, other in zip(decided[2::2], (5, 8), decided[3::2], modelled[3::2], strict=True):
            assert left == most or abs(ceil(one / 1e6) - other / 1e6) <= 1
        assert abs(decided[1] - modelled[1]) <= 5


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("jump", [-3600, 3600])
async def test_a_clock_of_redis_that_jumps_locks_nobody_for_longer_than_a_window(
    store: Store, window: WindowKind, jump: int
) -> None:
    now, args = 1_700_000_000_000_000, [1, 1, 3, 10, 3]
    answers = [(await store.run(at(window, now), ["a"], args))[0] for _ in range(4)]
    assert answers == [1, 1, 1, 0]
    now += jump * 1_000_000
    after = [await store.run(at(window, now), ["a"], args) for _ in range(4)]
    assert all(wait <= 11_000_000 for _, wait, *_ in after)
    assert sum(admitted for admitted, *_ in after) <= 3
    assert (await store.run(at(window, now + 20_000_001), ["a"], args))[0] == 1


def calls(redis: RedisServer) -> dict[str, int]:
    """How often each command was called until now, also by scripts."""
    told = re.findall(rb"cmdstat_([a-z|]+):calls=(\d+)", redis.talk("INFO", "commandstats"))
    return {name.decode(): int(number) for name, number in told}


WITHIN = {"time", "hmget", "hset", "llen", "lindex", "lpop", "rpush", "del", "pexpire"}
"""What scripts call."""


def limited(url: str, **options: Any) -> dict[str, Any]:
    store = {"url": url, "timeout": "2s" if options.pop("patient", True) else "50ms"}
    return document({"rate_limit": options}, store=store)


@pytest.mark.parametrize("window", WINDOWS)
async def test_two_gateways_share_one_limit_and_nothing_stays_for_ever(
    upstreams: Upstreams, redis: RedisServer, window: str
) -> None:
    declared = limited(redis.url, limits=["20/minute", "50/hour"], window=window)
    async with serving(upstreams, declared) as one, serving(upstreams, declared) as two:
        answers = await asyncio.gather(*(http.get("/") for http in (one, two) for _ in range(30)))
        refused = await one.get("/")
    assert Counter(answer.status_code for answer in answers) == {200: 20, 429: 40}
    assert 1 <= int(refused.headers["retry-after"]) <= 61
    assert refused.headers["ratelimit"].startswith('"minute";r=0;')
    keys = [word for word in redis.talk("KEYS", "*").decode().split("\r\n") if word.startswith("asgi_")]
    assert len(keys) == 2
    assert all(redis.talk("PTTL", key) > b":0" for key in keys)


@pytest.mark.parametrize("window", WINDOWS)
async def test_a_decision_is_one_round_trip_however_many_limits(
    upstreams: Upstreams, redis: RedisServer, window: str
) -> None:
    declared = limited(redis.url, limits=["20/minute", "50/hour"], window=window)
    async with serving(upstreams, declared) as http:
        await http.get("/")
        before = calls(redis)
        for _ in range(30):
            await http.get("/")
        after = calls(redis)
    grown = {name: after[name] - before.get(name, 0) for name in after if name not in WITHIN}
    assert {name: by for name, by in grown.items() if by} == {"evalsha": 30, "info": 1}


@pytest.mark.parametrize(
    ("on_error", "statuses"), [("open", [200] * 6), ("closed", [503] * 6), ("local", [200, 200, 429])]
)
@pytest.mark.parametrize("how", ["kill", "freeze"])
async def test_while_the_store_is_away_the_component_says_what_happens(
    upstreams: Upstreams, redis: RedisServer, on_error: str, statuses: list[int], how: str
) -> None:
    declared = limited(redis.url, limit="2/hour", on_error=on_error, patient=False)
    async with serving(upstreams, declared) as http:
        assert (await http.get("/")).status_code == 200
        getattr(redis, how)()
        began = monotonic()
        answers = [await http.get("/") for _ in range(6)]
        assert monotonic() - began < 1
        assert [answer.status_code for answer in answers[: len(statuses)]] == statuses
        if on_error == "closed":
            assert answers[0].json()["reason"] == "store_away"
            assert answers[0].headers["retry-after"] == "1"
        redis.thaw()
        if how == "kill":
            redis.start()
        async with asyncio.timeout(2.5):
            # It is the store again that counts: it admits in another order than the memory did.
            while (answer := await http.get("/")).status_code != 429 or "ratelimit" not in answer.headers:
                await asyncio.sleep(0.05)


async def test_reporting_goes_on_while_the_store_is_away(upstreams: Upstreams) -> None:
    declared = limited("redis://127.0.0.1:1", limit="1/hour", on_error="closed", mode="report")
    async with serving(upstreams, declared) as http:
        assert [(await http.get("/")).status_code for _ in range(5)] == [200] * 5


async def test_workers_may_share_what_the_whole_cluster_may_do(
    upstreams: Upstreams, redis: RedisServer
) -> None:
    declared = limited(redis.url, limit="3/hour", by="cluster")
    declared["routes"].append({**declared["routes"][0], "name": "other", "path": "/other"})
    one, two = (Gateway.parse(declared, plugins=[upstreams]) for _ in range(2))
    async with one.lifespan(), two.lifespan():
        statuses = []
        for gateway, path, address in ((one, "/", "192.0.2.1"), (two, "/other", "192.0.2.2")) * 2:
            async with client(gateway, address) as http:
                statuses.append((await http.get(path)).status_code)
    assert statuses == [200, 200, 200, 429]


async def ask(http: httpx.AsyncClient, seconds: float, rate: float) -> list[httpx.Response]:
    """So many requests in a second, whatever becomes of them."""
    began, asked = monotonic(), []
    while (passed := monotonic() - began) < seconds:
        while len(asked) < passed * rate:
            asked.append(asyncio.create_task(http.get("/stamp")))
        await asyncio.sleep(0.002)
    return list(await asyncio.gather(*asked))


@pytest.mark.parametrize(
    ("amount", "options"),
    [(50, {"window": "moving"}), (100, {"window": "bucket", "burst": 2})],
    ids=["moving", "bucket"],
)
async def test_four_workers_admit_the_limit_in_every_second(
    tmp_path: Any, redis: RedisServer, amount: int, options: dict[str, Any]
) -> None:
    """P39: at most the limit and 2 % in any second, 95 % of it under demand, stamped behind the gateway.

    A bucket admits its burst beside what drips in: 2 of 100. One of 1 would lose the time until the next
    request.
    """
    from tests.processes import gateway

    limit = {"limit": f"{amount}/second", "by": "route", "headers": "none", **options}
    declared = {
        "store": {"url": redis.url, "timeout": "2s"},
        "upstreams": {"app": {"asgi": "tests.plugins.stamping:app"}},
        "routes": [{"name": "all", "path": "/*", "upstream": "app", "components": [{"rate_limit": limit}]}],
    }
    async with (
        gateway(tmp_path, declared, "--workers", "4") as one,
        httpx.AsyncClient(base_url=one.url, trust_env=False, timeout=20) as http,
    ):
        answers = await ask(http, 3.0, 400)
        assert Counter(answer.status_code for answer in answers).keys() == {200, 429}
        passed = [answer.text.split() for answer in answers if answer.status_code == 200]
    stamps = sorted(float(stamp) for stamp, _ in passed)
    assert len({worker for _, worker in passed}) > 1
    span = stamps[-1] - stamps[0]
    # From the decision to the stamp takes a moment, and not always the same one.
    moment = 0.03
    most = max(sum(begin <= stamp < begin + 1 - moment for stamp in stamps) for begin in stamps)
    assert most <= amount * 1.02
    assert len(stamps) <= amount * (span + 1) * 1.02
    # On a machine that is too busy to ask for more than it gets, there is nothing to use up.
    if len(answers) > 2 * amount * span:
        assert len(stamps) >= 0.95 * amount * span
