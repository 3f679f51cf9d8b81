import asyncio
from typing import Any

import pytest

from asgi_gateway.gateway import Gateway
from tests.plugins.kit import Hand, Upstreams, client, document, handshake, serving
from tests.redis_server import RedisServer

CONSUMERS = [{"name": "acme", "keys": ["right"]}]


def guarded(**options: Any) -> dict[str, Any]:
    more = options.pop("more", {})
    declared = document("key_auth", {"early_rate_limit": options}, consumers=CONSUMERS, **more)
    declared["routes"][0]["websocket"] = True
    return declared


async def ask(http: Any, key: str) -> int:
    status: int = (await http.get("/", headers={"x-api-key": key})).status_code
    # What counts failures does so beside the requests.
    await asyncio.sleep(0.01)
    return status


async def test_it_refuses_before_a_key_is_looked_at(upstreams: Upstreams) -> None:
    async with serving(upstreams, guarded(limit="2/hour")) as http:
        assert [await ask(http, key) for key in ("wrong", "right", "right")] == [401, 200, 429]
        assert int((await http.get("/")).headers["retry-after"]) > 0


async def test_an_address_has_one_limit_for_all_its_keys_and_routes(upstreams: Upstreams) -> None:
    declared = document(components=[{"early_rate_limit": {"limit": "3/hour"}}], path="/a")
    declared["routes"].append({**declared["routes"][0], "name": "other", "path": "/b"})
    gateway = Gateway.parse(declared, plugins=[upstreams])
    async with client(gateway, "192.0.2.1") as one, client(gateway, "192.0.2.2") as two:
        assert [(await one.get(path)).status_code for path in ("/a", "/b", "/a", "/b")] == [
            *[200] * 3,
            429,
        ]
        assert (await two.get("/a")).status_code == 200


@pytest.mark.parametrize("shared", [False, True], ids=["memory", "redis"])
async def test_failures_alone_count_where_that_is_wanted(
    upstreams: Upstreams, shared: bool, request: pytest.FixtureRequest
) -> None:
    redis: RedisServer | None = request.getfixturevalue("redis") if shared else None
    more = {"store": {"url": redis.url, "timeout": "5s"}} if redis is not None else {}
    async with serving(upstreams, guarded(limit="3/hour", count="failures", more=more)) as http:
        assert [await ask(http, "right") for _ in range(6)] == [200] * 6
        assert [await ask(http, "wrong") for _ in range(5)] == [401] * 3 + [429] * 2
        # Also with the right one, so that who guesses learns nothing.
        assert await ask(http, "right") == 429


@pytest.mark.parametrize("window", ["fixed", "sliding", "moving", "bucket"])
@pytest.mark.parametrize("shared", [False, True], ids=["memory", "redis"])
async def test_many_attempts_at_one_time_are_no_way_around_it(
    upstreams: Upstreams, shared: bool, window: str, request: pytest.FixtureRequest
) -> None:
    redis: RedisServer | None = request.getfixturevalue("redis") if shared else None
    more = {"store": {"url": redis.url, "timeout": "5s"}} if redis is not None else {}
    declared = guarded(limit="5/hour", count="failures", window=window, more=more)
    async with serving(upstreams, declared) as http:
        assert await ask(http, "right") == 200
        statuses = await asyncio.gather(*(ask(http, f"wrong {n}") for n in range(100)))
        assert sorted(statuses) == [401] * 5 + [429] * 95
        assert await ask(http, "right") == 429


async def test_who_is_refused_is_not_locked_for_longer(upstreams: Upstreams) -> None:
    clock = Hand()
    declared = guarded(limit="2/minute", count="failures", window="fixed")
    async with serving(upstreams, declared, clock) as http:
        assert [await ask(http, "wrong") for _ in range(20)] == [401] * 2 + [429] * 18
        clock.seconds += 61
        assert await ask(http, "right") == 200


async def test_the_failures_of_an_upstream_count_too(upstreams: Upstreams) -> None:
    from asgi_gateway.testing import Upstream, gateway_around
    from asgi_gateway_plugins.early_rate_limit import EarlyRateLimit

    limit = EarlyRateLimit.model_validate({"limit": "2/hour", "count": "failures", "statuses": (422,)})
    async with gateway_around(limit, upstream=Upstream(status=422)) as http:
        statuses = []
        for _ in range(4):
            statuses.append((await http.post("/login")).status)
            await asyncio.sleep(0.01)
    assert statuses == [422, 422, 429, 429]


async def test_handshakes_count_and_reports_let_pass(upstreams: Upstreams) -> None:
    gateway = Gateway.parse(guarded(limit="1/hour"), plugins=[upstreams])
    key = [(b"x-api-key", b"right")]
    assert (await handshake(gateway, headers=key))[0]["type"] == "websocket.accept"
    assert (await handshake(gateway, headers=key))[0]["status"] == 429
    async with serving(upstreams, guarded(limit="1/hour", mode="report")) as http:
        assert [await ask(http, "right") for _ in range(3)] == [200] * 3


async def test_a_store_that_is_away_closes_where_that_is_wanted(upstreams: Upstreams) -> None:
    more = {"store": "redis://127.0.0.1:1"}
    async with serving(upstreams, guarded(limit="9/hour", on_error="closed", more=more)) as http:
        assert await ask(http, "right") == 503
    async with serving(upstreams, guarded(limit="2/hour", count="failures", more=more)) as http:
        assert [await ask(http, "wrong") for _ in range(3)] == [401, 401, 429]
