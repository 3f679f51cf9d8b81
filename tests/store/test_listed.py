"""Lists of networks in a real Redis, which another system changes under traffic."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from tests.redis_server import RedisServer


def document(store: str, **options: Any) -> dict[str, Any]:
    return {
        "store": {"url": store, "timeout": "2s"} if store else "memory://",
        "upstreams": {"app": {"asgi": "tests.server.apps:app"}},
        "routes": [
            {
                "name": "all",
                "path": "/*",
                "upstream": "app",
                "components": [{"ip_filter": {"refresh": "10ms", **options}}],
            }
        ],
    }


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.005)


async def test_lists_in_the_store_hold_while_the_gateway_runs(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    from redis.asyncio import Redis

    gateway = Gateway.parse(document(redis.url, deny_list="blocked", allow_list="partners"))
    transport = httpx.ASGITransport(gateway, client=("203.0.113.7", 1))
    async with (
        gateway.lifespan(),
        httpx.AsyncClient(transport=transport, base_url="http://test") as http,
        Redis.from_url(redis.url, protocol=2) as other,
    ):

        async def status() -> int:
            return (await http.get("/")).status_code

        async def reasons() -> str:
            answer = await http.get("/")
            return "" if answer.status_code == 200 else str(answer.json()["reason"])

        assert await reasons() == "address_not_allowed"
        await other.set("asgi_gateway:ip_filter/partners", "# ours\n203.0.113.0/24\n::1\n")
        await until(lambda: is_(status, 200))
        await other.set("asgi_gateway:ip_filter/blocked", "203.0.113.7")
        await until(lambda: is_(reasons, "address_denied"))
        await other.delete("asgi_gateway:ip_filter/blocked")
        await until(lambda: is_(status, 200))
        await other.set("asgi_gateway:ip_filter/partners", "not a network")
        await until(lambda: is_(lambda: said(caplog), 1))
        redis.kill()
        # What was good last holds.
        assert await status() == 200
    assert said_of(caplog)[0].endswith("'not a network' is not a network (as in 10.0.0.0/8 or ::1)")


async def is_(ask: Callable[[], Any], wanted: Any) -> bool:
    return bool(await ask() == wanted)


async def said(caplog: pytest.LogCaptureFixture) -> int:
    return len(said_of(caplog))


def said_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [record.getMessage() for record in caplog.records]
    return [line for line in lines if "is not a network" in line]


def test_a_list_needs_a_store_that_somebody_else_can_write() -> None:
    with pytest.raises(ConfigError, match="lists in the store need one that is shared"):
        Gateway.parse(document("", deny_list="blocked"))
