"""Consumers that lie in the store, found by what they show, over a real Redis."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any

import httpx
import pytest

from asgi_gateway.consumers import Consumer
from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from asgi_gateway.store import Store, StoreRecords, records_of
from tests.plugins.kit import Hand, Upstreams, document, handshake, serving
from tests.plugins.test_signature import SECRET, sign
from tests.redis_server import RedisServer

STORED = Consumer.model_validate(
    {
        "name": "stored",
        "groups": ["gold"],
        "keys": ["key-of-stored"],
        "basic": [{"username": "stored", "password": "hush"}],
        "hmac": [{"id": "acme-1", "secret": SECRET}],
    }
)
LOGIN = httpx.BasicAuth("stored", "hush")

Ask = Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]


def ask_with_key(http: httpx.AsyncClient, key: str = "key-of-stored") -> Awaitable[httpx.Response]:
    return http.get("/", headers={"x-api-key": key})


async def ask_signed(http: httpx.AsyncClient) -> httpx.Response:
    return await http.get("/", headers={"authorization": sign()})


WAYS: dict[str, tuple[Ask, Ask]] = {
    "key_auth": (ask_with_key, lambda http: ask_with_key(http, "wrong")),
    "basic_auth": (
        lambda http: http.get("/", auth=LOGIN),
        lambda http: http.get("/", auth=httpx.BasicAuth("stored", "wrong")),
    ),
    "signature": (
        ask_signed,
        lambda http: http.get("/", headers={"authorization": sign(secret="w" * 32)}),
    ),
}


def write(redis: RedisServer, *consumers: Consumer) -> None:
    for consumer in consumers:
        for key, value in records_of(consumer).items():
            assert redis.talk("SET", f"asgi_gateway:{key}", value.decode()) == b"+OK\r\n"


def asked(redis: RedisServer) -> int:
    """How often somebody looked for a record."""
    told = redis.talk("INFO", "commandstats").partition(b"cmdstat_get:calls=")[2]
    return int(told.partition(b",")[0] or 0)


def looking(url: str, *components: Any, timeout: str = "2s", **options: Any) -> dict[str, Any]:
    store = {"url": url, "timeout": timeout, "consumers": options or True}
    return document(*components, store=store, route={"websocket": True})


@pytest.mark.parametrize("way", WAYS)
async def test_who_is_in_the_store_is_let_in(
    upstreams: Upstreams, redis: RedisServer, clock: Hand, way: str
) -> None:
    right, wrong = WAYS[way]
    acl = {"acl": {"consumers": ["stored"], "groups": ["gold"]}}
    async with serving(upstreams, looking(redis.url, way, acl), clock) as http:
        assert (await right(http)).status_code == 401
        write(redis, STORED)
        # It is remembered for a while that nobody has this.
        assert (await right(http)).status_code == 401
        clock.seconds += 10
        assert (await right(http)).status_code == 200
        assert upstreams.headers("x-consumer") == ["stored"]
        assert (await wrong(http)).status_code == 401


def test_a_record_shows_no_more_than_it_has_to() -> None:
    told = records_of(STORED)
    assert f"consumer/key/{sha256(b'key-of-stored').hexdigest()}" in told
    shown = {key.split("/")[1]: json.loads(value) for key, value in told.items()}
    who = {"name": "stored", "groups": ["gold"]}
    assert shown == {
        "key": who,
        "login": {**who, "basic": [{"username": "stored", "password": "hush"}]},
        "secret": {**who, "hmac": [{"id": "acme-1", "secret": SECRET}]},
    }


async def test_who_is_remembered_costs_no_round_trip(
    upstreams: Upstreams, redis: RedisServer, clock: Hand
) -> None:
    write(redis, STORED)
    async with serving(upstreams, looking(redis.url, "key_auth", cache="30s"), clock) as http:
        before = asked(redis)
        # A hundred at once are one question, and so are a hundred with a key that nobody has.
        answers = await asyncio.gather(*(ask_with_key(http) for _ in range(100)))
        assert {answer.status_code for answer in answers} == {200}
        assert asked(redis) == before + 1
        answers = await asyncio.gather(*(ask_with_key(http, "nobody's") for _ in range(100)))
        assert {answer.status_code for answer in answers} == {401}
        assert asked(redis) == before + 2
        clock.seconds += 29
        assert [(await ask_with_key(http)).status_code for _ in range(3)] == [200] * 3
        assert asked(redis) == before + 2
        clock.seconds += 2
        assert [(await ask_with_key(http)).status_code for _ in range(3)] == [200] * 3
        assert asked(redis) == before + 3


async def test_whom_the_file_knows_is_not_asked_for(upstreams: Upstreams, redis: RedisServer) -> None:
    declared = looking(redis.url, "key_auth")
    declared["consumers"] = [{"name": "acme", "keys": ["key-of-acme"]}]
    async with serving(upstreams, declared) as http:
        before = asked(redis)
        assert (await ask_with_key(http, "key-of-acme")).status_code == 200
        assert (await http.get("/")).status_code == 401
        assert asked(redis) == before


async def test_a_record_gives_a_consumer_of_the_file_another_key_and_nothing_else(
    upstreams: Upstreams, redis: RedisServer
) -> None:
    write(redis, STORED)
    acl = {"acl": {"groups": ["gold"]}}
    declared = looking(redis.url, "key_auth", acl)
    declared["consumers"] = [{"name": "stored", "keys": ["key-of-acme"], "groups": ["silver"]}]
    async with serving(upstreams, declared) as http:
        assert (await ask_with_key(http)).status_code == 403


async def test_what_changes_in_the_store_counts_after_a_while(
    upstreams: Upstreams, redis: RedisServer, clock: Hand
) -> None:
    write(redis, STORED)
    declared = looking(redis.url, "key_auth", {"acl": {"groups": ["gold"]}})
    async with serving(upstreams, declared, clock) as http:
        assert (await ask_with_key(http)).status_code == 200
        write(redis, STORED.model_copy(update={"groups": ("silver",)}))
        clock.seconds += 10
        assert (await ask_with_key(http)).status_code == 403
        redis.talk("FLUSHALL")
        clock.seconds += 10
        assert (await ask_with_key(http)).status_code == 401


@pytest.mark.parametrize("how", ["kill", "freeze"])
@pytest.mark.parametrize("way", WAYS)
async def test_while_the_store_is_away(
    upstreams: Upstreams, redis: RedisServer, clock: Hand, way: str, how: str
) -> None:
    right = WAYS[way][0]
    write(redis, STORED)
    entry = {way: {"on_error": "local"} if way == "signature" else {}}
    declared = looking(redis.url, entry, timeout="50ms", cache="10s", stale="60s")
    declared["consumers"] = [{"name": "acme", "keys": ["key-of-acme"]}]
    async with serving(upstreams, declared, clock) as http:
        async with asyncio.timeout(5):
            # A machine that is busy may need more than the 50 ms for the first answer.
            while (await right(http)).status_code == 503:
                await asyncio.sleep(0.02)
        getattr(redis, how)()
        clock.seconds += 69
        assert (await right(http)).status_code == 200
        clock.seconds += 2
        answer = await right(http)
        assert (answer.status_code, answer.json()["reason"]) == (503, "store_away")
        assert answer.headers["retry-after"] == "1"
        if way == "key_auth":
            assert (await ask_with_key(http, "unknown")).status_code == 503
            assert (await ask_with_key(http, "key-of-acme")).status_code == 200
            assert (await http.get("/")).status_code == 401
        redis.thaw()
        if how == "kill":
            redis.start()
            write(redis, STORED)
        async with asyncio.timeout(5):
            while (await right(http)).status_code == 503:
                clock.seconds += 0.25
                await asyncio.sleep(0.02)


async def test_what_is_no_consumer_is_nobody_and_told_without_a_secret(
    upstreams: Upstreams, redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    for key in records_of(STORED):
        redis.talk("SET", f"asgi_gateway:{key}", '{"name": "x", "keys": ["hush-hush"], "gruops": ["hush"]}')
    async with serving(upstreams, looking(redis.url, "key_auth")) as http:
        assert (await ask_with_key(http)).status_code == 401
    assert "the store has no consumer under consumer/key/" in caplog.text
    assert "gruops is wrong" in caplog.text
    assert "hush" not in caplog.text


async def test_a_record_under_another_name_is_nobody(upstreams: Upstreams, redis: RedisServer) -> None:
    for key in records_of(STORED):
        redis.talk("SET", f"asgi_gateway:{key}", '{"name": "stored", "basic": [], "hmac": []}')
    for way in ("basic_auth", "signature"):
        async with serving(upstreams, looking(redis.url, way)) as http:
            assert (await WAYS[way][0](http)).status_code == 401


async def test_what_is_remembered_is_bounded(redis: RedisServer) -> None:
    class Full(Store):
        """Every second credential is somebody's."""

        asked = 0

        async def get(self, key: str) -> bytes | None:
            self.asked += 1
            return b'{"name": "a"}' if key.endswith("0") else None

        @classmethod
        def open(cls, url: str, **more: Any) -> Store:
            raise NotImplementedError

        set = add = delete = run = get  # type: ignore[assignment]

    store = Full()
    records = StoreRecords(store, lambda: 0.0, cache=10, stale=10, max_cached=100)
    assert await records.find("key", "first-0") is not None
    for number in range(10_000):
        assert await records.find("key", f"{number}-1") is None
    assert len(records._nobodys._entries) == 100
    # Credentials that nobody has push out nobody.
    before = store.asked
    assert await records.find("key", "first-0") is not None
    assert store.asked == before
    for number in range(1000):
        await records.find("key", f"{number}-0")
    assert len(records._owned._entries) == 100


async def test_who_leaves_takes_no_answer_away_from_others() -> None:
    class Slow(Store):
        gate = asyncio.Event()

        async def get(self, key: str) -> bytes | None:
            await self.gate.wait()
            return b'{"name": "a"}'

        @classmethod
        def open(cls, url: str, **more: Any) -> Store:
            raise NotImplementedError

        set = add = delete = run = get  # type: ignore[assignment]

    records = StoreRecords(Slow(), lambda: 0.0, cache=10, stale=10, max_cached=100)
    first, second = (asyncio.create_task(records.find("key", "a")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    Slow.gate.set()
    found = await second
    assert found is not None
    assert found.name == "a"
    assert first.cancelled()
    Slow.gate.clear()
    late = asyncio.create_task(records.find("key", "b"))
    await asyncio.sleep(0)
    await records.aclose()
    with pytest.raises(asyncio.CancelledError):
        await late


async def test_a_websocket_and_a_reload(upstreams: Upstreams, redis: RedisServer) -> None:
    write(redis, STORED)
    gateway = Gateway.parse(looking(redis.url, "key_auth"), plugins=[upstreams])
    key = [(b"x-api-key", b"key-of-stored")]
    async with gateway.lifespan():
        assert (await handshake(gateway, headers=key))[0]["type"] == "websocket.accept"
        before = asked(redis)
        await gateway.reload(gateway.config)
        assert (await handshake(gateway, headers=key))[0]["type"] == "websocket.accept"
        assert asked(redis) == before
        assert (await handshake(gateway, headers=[(b"x-api-key", b"x")]))[0]["status"] == 401


def test_a_store_that_nobody_else_writes_has_no_consumers() -> None:
    declared = document("key_auth", store={"url": "memory://", "consumers": True})
    with pytest.raises(ConfigError, match=r"^store.consumers: there are no consumers in a store"):
        Gateway.parse(declared, plugins=[Upstreams()])
    with pytest.raises(ConfigError, match=r"store.consumers"):
        Gateway.parse({"store": {"url": "redis://127.0.0.1:1", "consumers": {"cache": 0}}})
    assert Gateway.parse({"store": {"url": "redis://127.0.0.1:1", "consumers": False}}).config


def test_a_condition_may_name_who_is_in_the_store() -> None:
    entry = {"headers": {"request": {"set": {"x-a": "1"}}, "when": {"consumer": ["stored"]}}}
    declared = looking("redis://127.0.0.1:1", "key_auth", entry)
    declared["consumers"] = [{"name": "acme", "keys": ["k"]}]
    assert Gateway.parse(declared, plugins=[Upstreams()])
    with pytest.raises(ConfigError, match="no consumer is called 'stored'"):
        Gateway.parse({**declared, "store": "redis://127.0.0.1:1"}, plugins=[Upstreams()])


async def test_a_password_in_the_store_may_be_a_hash(upstreams: Upstreams, redis: RedisServer) -> None:
    from argon2 import PasswordHasher

    hashed = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("hush")
    login = {"username": "stored", "password": hashed}
    write(redis, Consumer.model_validate({"name": "stored", "basic": [login]}))
    async with serving(upstreams, looking(redis.url, "basic_auth")) as http:
        assert (await http.get("/", auth=LOGIN)).status_code == 200
        assert (await http.get("/", auth=httpx.BasicAuth("stored", "wrong"))).status_code == 401
        assert (await http.get("/", auth=httpx.BasicAuth("nobody", "hush"))).status_code == 401
