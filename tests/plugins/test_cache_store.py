"""The second level of a cache: a store that the processes of a gateway share."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from asgi_gateway.plugins import Plugins
from asgi_gateway.store import Guarded, MemoryStore, StoreError
from asgi_gateway.testing import Client, HandClock, Response, Upstream, gateway_around
from asgi_gateway_contrib.redis import RedisStore
from asgi_gateway_plugins.cache import Cache
from asgi_gateway_plugins.cache.policy import Term
from asgi_gateway_plugins.cache.second import MOST_READ, Second, decode, encode
from asgi_gateway_plugins.cache.shelf import Entry, Key, Shelf
from tests.redis_server import RedisServer, is_installed, redis_server

MINUTE = [(b"cache-control", b"max-age=60")]
BASE: Key = ("place", "main", "", "http", b"gateway.test", b"/a", b"b=c")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    if not is_installed():
        pytest.skip("no redis-server here: scripts/setup installs it where it can")
    with redis_server(tmp_path) as server:
        yield server


def says(response: Response) -> str:
    return response.values("cache-status")[-1].removeprefix("asgi-gateway; ")


class Two:
    """Two processes that share a store, as their caches see it."""

    def __init__(self, store: Any) -> None:
        self.clock = HandClock()
        self.store = store
        self.shelves = [Shelf(1 << 20), Shelf(1 << 20)]
        self.one, self.other = [Second(store, shelf, self.clock) for shelf in self.shelves]

    def entry(self, body: bytes = b"body", tags: tuple[bytes, ...] = (), **term: Any) -> Entry:
        told = {"lifetime": 60.0, "age": 5.0, **term}
        headers = [(b"a", b"\xff"), (b"a", b"2")]
        return Entry(200, headers, body, Term(**told), self.clock.monotonic(), tags)

    async def put(
        self, entry: Entry, base: Key = BASE, fields: tuple[bytes, ...] = (), headers: Any = ()
    ) -> None:
        marks, _ = await self.one.find(base, headers)
        await self.one.keep(base, fields, headers, entry, marks)

    async def found(self, base: Key = BASE, headers: Any = ()) -> Entry | None:
        _, found = await self.other.find(base, headers)
        return found[1] if found is not None else None


@pytest.fixture(params=["memory", "redis"])
async def two(request: pytest.FixtureRequest) -> AsyncIterator[Two]:
    if request.param == "memory":
        made = Two(None)
        made.store = MemoryStore(made.clock.monotonic)
        made.one, made.other = [Second(made.store, shelf, made.clock) for shelf in made.shelves]
    else:
        server: RedisServer = request.getfixturevalue("redis")
        made = Two(RedisStore(server.url, 2.0))
    yield made
    await made.store.aclose()


async def test_what_one_keeps_the_other_finds(two: Two) -> None:
    await two.put(two.entry())
    two.clock.advance(10)
    found = await two.found()
    assert found is not None
    assert (found.status, found.headers, found.body) == (200, [(b"a", b"\xff"), (b"a", b"2")], b"body")
    assert two.clock.monotonic() - found.made == 15
    assert found.fresh_until - two.clock.monotonic() == 45
    assert await two.found((*BASE[:-1], b"b=d")) is None
    assert await two.found(("place", "main", "anna", *BASE[3:])) is None


async def test_what_varies_is_found_by_what_chose_it(two: Two) -> None:
    for value in (b"1", b"2"):
        await two.put(two.entry(value), BASE, (b"x",), [(b"x", value)])
    for value in (b"1", b"2"):
        found = await two.found(BASE, [(b"x", value)])
        assert found is not None
        assert found.body == value
    assert await two.found(BASE, [(b"x", b"3")]) is None


async def test_what_cannot_be_used_any_more_is_not_written(two: Two) -> None:
    await two.put(two.entry(age=60.0))
    assert await two.found() is None
    await two.put(two.entry(age=60.0, if_error=30.0))
    assert await two.found() is not None


async def test_a_change_is_heard_by_all(two: Two) -> None:
    for shelf in two.shelves:
        shelf.keep(BASE, BASE, two.entry())
    await two.put(two.entry())
    await two.other.listen()
    await two.one.changed([(b"/a", b"b=c")])
    assert await two.found() is None
    assert len(two.shelves[1]) == 1
    await two.other.listen()
    assert len(two.shelves[1]) == 0
    await two.put(two.entry(b"new"))
    found = await two.found()
    assert found is not None
    assert found.body == b"new"


async def test_tags_and_places_are_purged_everywhere(two: Two) -> None:
    for purge in (two.one.purge_tag(b"t\xfc"), two.one.purge_place("place")):
        entry = two.entry(tags=(b"t\xfc", b"u"))
        two.shelves[1].keep(BASE, BASE, entry)
        await two.put(entry)
        assert await two.found() is not None
        await two.other.listen()
        await purge
        assert await two.found() is None
        await two.other.listen()
        assert len(two.shelves[1]) == 0


async def test_what_was_asked_before_a_purge_is_not_written_after_it(two: Two) -> None:
    for purge in ("tag", "path"):
        marks, _ = await two.one.find(BASE, ())
        if purge == "tag":
            await two.other.purge_tag(b"t")
        else:
            await two.other.purge_paths([(b"/a", b"b=c")])
        await two.one.keep(BASE, (), (), two.entry(tags=(b"t",)), marks)
        assert await two.found() is None


async def test_who_is_too_far_behind_forgets_everything(two: Two) -> None:
    two.shelves[1].keep(BASE, BASE, two.entry())
    await two.other.listen()
    for _ in range(MOST_READ + 1):
        await two.one.purge_tag(b"t")
    await two.other.listen()
    assert len(two.shelves[1]) == 0
    two.shelves[1].keep(BASE, BASE, two.entry())
    await two.other.listen()
    assert len(two.shelves[1]) == 1


async def test_a_store_that_lost_its_memory_is_not_believed(two: Two) -> None:
    await two.one.purge_tag(b"t")
    await two.other.listen()
    two.shelves[1].keep(BASE, BASE, two.entry())
    await two.store.delete("cache/purged")
    await two.other.listen()
    assert len(two.shelves[1]) == 0


@pytest.mark.parametrize("value", [b"", b"\xc1", encode([0]), encode({"a": 1}), encode(7), None])
def test_what_is_no_record_is_a_miss(value: bytes | None) -> None:
    assert decode(value) is None


# Gateways


@asynccontextmanager
async def gateway(redis: RedisServer, upstream: Upstream, timeout: str = "2s") -> AsyncIterator[Client]:
    store = {"url": redis.url, "timeout": timeout}
    around: dict[str, Any] = {"plugins": Plugins.installed(), "store": store}
    async with gateway_around(Cache(use_store=True), upstream=upstream, **around) as client:
        yield client


async def written(redis: RedisServer, many: int) -> None:
    """Wait until so many keys are in the store."""
    for _ in range(1000):
        if int(redis.talk("DBSIZE")[1:]) >= many:
            return
        await asyncio.sleep(0.005)
    raise AssertionError("nothing was written")


async def test_a_new_process_is_warm(redis: RedisServer) -> None:
    upstream = Upstream(b"body", headers=[*MINUTE, (b"etag", b'"a"')])
    async with gateway(redis, upstream) as one, gateway(redis, upstream) as other:
        await one.get("/a")
        await written(redis, 1)
        shared = await other.get("/a")
        assert says(shared).startswith("hit; ttl=")
        assert says(shared).endswith("detail=shared")
        assert (shared.body, shared.values("content-length")) == (b"body", ["4"])
        again = await other.get("/a")
        assert "shared" not in says(again)
        assert (await other.get("/a", headers={"cache-control": "only-if-cached"})).status == 200
        assert (await other.get("/b", headers={"cache-control": "only-if-cached"})).status == 504
    assert len(upstream.seen) == 1


async def test_many_callers_are_one_question_and_one_fetch(redis: RedisServer) -> None:
    upstream = Upstream(b"body", headers=MINUTE)
    async with gateway(redis, upstream) as client:
        answers = await asyncio.gather(*[client.get("/a") for _ in range(30)])
        assert {answer.body for answer in answers} == {b"body"}
    assert len(upstream.seen) == 1


async def test_variants_are_not_mixed_up(redis: RedisServer) -> None:
    upstream = Upstream(headers=[*MINUTE, (b"vary", b"x")])
    async with gateway(redis, upstream) as one, gateway(redis, upstream) as other:
        for value in ("1", "2"):
            upstream.chunks = (value.encode(),)
            await one.get("/a", headers={"x": value})
        await written(redis, 3)
        asked = [other.get("/a", headers={"x": value}) for value in ("1", "2", "1", "2")]
        assert [answer.body for answer in await asyncio.gather(*asked)] == [b"1", b"2", b"1", b"2"]
    assert len(upstream.seen) == 2


async def test_what_is_validated_is_written_as_the_variant_that_it_is(redis: RedisServer) -> None:
    clock = HandClock()
    headers = [*MINUTE, (b"vary", b"x"), (b"etag", b'"a"')]
    upstream = Upstream(b"1", headers=headers)
    store = {"url": redis.url, "timeout": "2s"}
    around: dict[str, Any] = {"plugins": Plugins.installed(), "store": store, "clock": clock}
    async with gateway_around(Cache(use_store=True), upstream=upstream, **around) as one:
        await one.get("/a", headers={"x": "1"})
        clock.advance(61)
        upstream.status, upstream.chunks = 304, (b"",)
        assert says(await one.get("/a", headers={"x": "1"})) == "fwd=stale; fwd-status=304"
        await written(redis, 2)
    async with gateway_around(Cache(use_store=True), upstream=upstream, **around) as other:
        upstream.status, upstream.chunks = 200, (b"2",)
        assert (await other.get("/a", headers={"x": "2"})).body == b"2"
        assert (await other.get("/a", headers={"x": "1"})).body == b"1"


async def test_a_change_by_one_is_one_for_the_other(redis: RedisServer) -> None:
    upstream = Upstream(b"old", headers=MINUTE)
    async with gateway(redis, upstream) as one, gateway(redis, upstream) as other:
        await one.get("/a")
        await written(redis, 1)
        await one.post("/a")
        await written(redis, 4)
        upstream.chunks = (b"new",)
        assert (await other.get("/a")).body == b"new"


async def test_a_purge_by_one_is_one_for_the_other(redis: RedisServer) -> None:
    upstream = Upstream(b"old", headers=[*MINUTE, (b"cache-tag", b"t")])
    async with gateway(redis, upstream) as one, gateway(redis, upstream) as other:
        await one.get("/a")
        await written(redis, 1)
        made: Gateway = one._app  # type: ignore[assignment]
        for what in ({"tag": "t"}, {"url": "/a"}, {}):
            await made.operate("route/main/cache/purge", **what)
        upstream.chunks = (b"new",)
        assert (await other.get("/a")).body == b"new"


async def test_a_dead_store_costs_nothing_but_its_help(redis: RedisServer) -> None:
    upstream = Upstream(b"body", headers=MINUTE)
    redis.kill()
    async with gateway(redis, upstream) as client:
        for path in ("/a", "/b", "/c", "/d"):
            assert (await client.get(path)).status == 200
        assert "hit" in says(await client.get("/a"))
        assert (await client.post("/a")).status == 200
        made: Gateway = client._app  # type: ignore[assignment]
        whole = "http://gateway.test/c"
        for what, gone in (({"url": "/b"}, 1), ({"url": whole}, 1), ({"tag": "x"}, 0), ({}, 1)):
            with pytest.raises(StoreError, match=f"this process {gone} answers were purged.* purge again"):
                await made.operate("route/main/cache/purge", **what)
        assert says(await client.get("/b")).startswith("fwd")


async def test_a_frozen_store_costs_a_request_its_deadline_at_most(redis: RedisServer) -> None:
    upstream = Upstream(b"body", headers=MINUTE)
    async with gateway(redis, upstream, "50ms") as client:
        await client.get("/warm")
        redis.freeze()
        for number in range(50):
            assert (await client.get(f"/{number}")).status == 200
        kept = client._app._kernel.resources._kept  # type: ignore[attr-defined]
        (guarded,) = [one.value for one in kept.values() if isinstance(one.value, Guarded)]
        redis.thaw()
    # After three failures in a row it is not asked for a second, by any of the 100 who would.
    assert guarded.skipped > guarded.failures >= 3


def test_a_store_that_is_not_shared_is_refused() -> None:
    with pytest.raises(ConfigError, match="use_store needs a store that is shared"):
        Gateway.parse(
            {
                "upstreams": {"up": {"targets": ["http://127.0.0.1:1"]}},
                "routes": [
                    {
                        "name": "a",
                        "path": "/",
                        "upstream": "up",
                        "components": [{"cache": {"use_store": True}}],
                    }
                ],
            }
        )
