import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import pytest

from asgi_gateway.gateway import Gateway
from asgi_gateway.store import Arg, MemoryStore, Script, Store, StoreError
from asgi_gateway.testing import Upstream, gateway_around
from asgi_gateway_contrib.redis import RedisStore
from asgi_gateway_plugins.concurrency import Concurrency
from asgi_gateway_plugins.concurrency.slots import ACQUIRING, RELEASING, RENEWING, LocalSlots, SharedSlots
from asgi_gateway_plugins.quota import Quota
from tests.plugins.kit import Hand, Upstreams, document, serving
from tests.processes import gateway
from tests.redis_server import RedisServer


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of a gateway that counts here or there."""
    if request.param == "memory":
        return {}
    url = request.getfixturevalue("redis").url
    config = Gateway.parse({"store": {"url": url, "timeout": "5s"}})
    return {"store": config.config.store, "plugins": config.plugins}


async def free(client: Any, status: int = 200) -> None:
    """Wait until a request passes: a slot in a shared store is given back beside the requests."""
    async with asyncio.timeout(2):
        while (await client.get("/")).status != status:
            await asyncio.sleep(0.01)


async def test_one_too_many_is_refused_until_one_has_ended(store: dict[str, Any]) -> None:
    upstream = Upstream(b"first", b"second", waits="chunk")
    async with gateway_around(Concurrency(limit=1), upstream=upstream, **store) as client:
        async with client.stream("GET", "/") as one:
            assert await one.chunk() == b"first"
            refused = await client.get("/")
            assert refused.status == 429
            assert b"too_many_at_once" in refused.body
            upstream.proceed()
            await one.read()
        upstream.waits = "never"
        await free(client)


@pytest.mark.parametrize("how", ["leaves", "fails", "breaks", "refused"])
async def test_a_slot_is_given_back_on_every_way_out(store: dict[str, Any], how: str) -> None:
    from asgi_gateway.errors import Aborted

    upstream = {
        "leaves": Upstream(b"a", b"b", waits="chunk"),
        "fails": Upstream(fails="head"),
        "breaks": Upstream(b"a", b"b", fails="chunk"),
        "refused": Upstream(),
    }[how]
    # It stands behind: what it refuses has a slot already.
    late = (Quota(limit=1, by="ip"),) if how == "refused" else ()
    async with gateway_around(Concurrency(limit=1), *late, upstream=upstream, **store) as client:
        for _ in range(4):
            async with asyncio.timeout(5):
                while True:
                    async with client.stream("GET", "/") as one:
                        with suppress(Aborted):
                            await one.head()
                            if one.status < 400:
                                await one.chunk()
                                await one.leave()
                            told = (one.status, b"too_many_at_once" in await one.read())
                        if how in ("leaves", "breaks") or told != (429, True):
                            # It had a slot, which the next one needs.
                            break
                    await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            while b"too_many_at_once" in (await asked(client)):
                await asyncio.sleep(0.01)


async def asked(client: Any) -> bytes:
    """What a request gets whose upstream hangs, fails or breaks."""
    from asgi_gateway.errors import Aborted

    async with client.stream("GET", "/") as one:
        with suppress(Aborted):
            await one.head()
            return b"" if one.status == 200 else bytes(await one.read())
    return b""


async def test_a_websocket_holds_its_slot_until_it_is_closed(store: dict[str, Any]) -> None:
    async with gateway_around(Concurrency(limit=1), upstream=Upstream(), **store) as client:
        async with client.websocket("/"):
            async with asyncio.timeout(2):
                while (await client.get("/")).status != 429:
                    await asyncio.sleep(0.01)
        await free(client)


async def test_callers_have_slots_of_their_own(upstreams: Upstreams) -> None:
    upstreams.hangs = True
    declared = document({"concurrency": {"limit": 2, "by": "header:x-app"}})
    async with serving(upstreams, declared) as http:
        held = [asyncio.create_task(http.get("/", headers={"x-app": app})) for app in "aab"]
        await asyncio.sleep(0.05)
        assert len(upstreams.seen) == 3
        assert (await http.get("/", headers={"x-app": "a"})).status_code == 429
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)


@pytest.fixture(params=["memory", "redis"])
async def leases(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Store, Callable[[float], Any]]]:
    """A store, and how to let time pass there."""
    if request.param == "memory":
        clock = Hand()

        async def pass_by(seconds: float) -> None:
            clock.seconds += seconds

        yield MemoryStore(lambda: clock.seconds), pass_by
        return
    store = RedisStore.open(request.getfixturevalue("redis").url, timeout=5, now=monotonic)
    yield store, asyncio.sleep
    await store.aclose()


async def test_a_lease_ends_unless_it_is_renewed(leases: tuple[Store, Callable[[float], Any]]) -> None:
    store, pass_by = leases

    async def take(token: str) -> int:
        return (await store.run(ACQUIRING, ["a"], [300, 2, token]))[0]

    assert [await take("1"), await take("2"), await take("3")] == [1, 1, 0]
    await pass_by(0.2)
    assert list(await store.run(RENEWING, ["a"], [300, "1"])) == [1]
    await pass_by(0.2)
    assert [await take("3"), await take("4")] == [1, 0]
    assert list(await store.run(RELEASING, ["a"], ["1"])) == [1]
    assert list(await store.run(RELEASING, ["a"], ["1"])) == [0]
    assert await take("4") == 1


@asynccontextmanager
async def two_workers(folder: Path, redis: RedisServer, **options: Any) -> AsyncIterator[Any]:
    declared = {
        "store": {"url": redis.url, "timeout": "2s"},
        "upstreams": {"app": {"asgi": "tests.server.apps:app"}},
        "routes": [
            {"name": "all", "path": "/*", "upstream": "app", "components": [{"concurrency": options}]},
            {"name": "free", "path": "/pid", "upstream": "app"},
        ],
    }
    async with (
        gateway(folder, declared, "--workers", "2") as one,
        httpx.AsyncClient(base_url=one.url, trust_env=False, timeout=20) as http,
    ):
        yield one, http


async def test_workers_share_slots_and_those_of_a_killed_one_come_back(
    tmp_path: Path, redis: RedisServer
) -> None:
    async with two_workers(tmp_path, redis, limit=3, lease="1s") as (one, http):
        waiting = [asyncio.create_task(http.get("/wait")) for _ in range(12)]
        done, held = await asyncio.wait(waiting, timeout=1)
        assert [task.result().status_code for task in done] == [429] * 9
        # Longer than a lease: they are renewed.
        await asyncio.sleep(1.5)
        assert (await http.get("/other")).status_code == 429
        workers: set[int] = set()
        async with asyncio.timeout(10):
            while len(workers) < 2:
                async with httpx.AsyncClient(base_url=one.url, trust_env=False) as other:
                    workers.add(int((await other.get("/pid")).text))
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        await asyncio.gather(*held, return_exceptions=True)
        began = monotonic()
        async with asyncio.timeout(10):
            while True:
                try:
                    if (await http.get("/other")).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)
        assert monotonic() - began < 5


@pytest.mark.parametrize(
    ("on_error", "statuses"), [("open", {200}), ("closed", {503}), ("local", {200, 429})]
)
async def test_without_the_store_the_component_says_what_happens(
    upstreams: Upstreams, on_error: str, statuses: set[int]
) -> None:
    declared = document({"concurrency": {"limit": 1, "on_error": on_error}}, store="redis://127.0.0.1:1")
    async with serving(upstreams, declared) as http:
        upstreams.hangs = True
        holding = asyncio.create_task(http.get("/"))
        await asyncio.sleep(0.1)
        upstreams.hangs = False
        answer = await http.get("/")
        holding.cancel()
        first = 503 if on_error == "closed" else 200
        await asyncio.gather(holding, return_exceptions=True)
        after = await http.get("/")
    assert after.status_code == first
    assert answer.status_code in statuses
    assert answer.status_code == {"open": 200, "closed": 503, "local": 429}[on_error]


async def test_reporting_lets_pass(upstreams: Upstreams) -> None:
    async with serving(upstreams, document({"concurrency": {"limit": 1, "mode": "report"}})) as http:
        answers = await asyncio.gather(*(http.get("/") for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}


async def test_slots_that_a_frozen_store_gave_or_kept_come_back_with_it(redis: RedisServer) -> None:
    """What was asked for is done when it goes on, though nobody waits for the answer any more."""
    parsed = Gateway.parse({"store": redis.url})
    upstream = Upstream(b"first", b"second", waits="chunk")
    options = {"store": parsed.config.store, "plugins": parsed.plugins}
    key = "asgi_gateway:concurrency/route main/0/ip/2{ip 127.0.0.1}"
    async with gateway_around(Concurrency(limit=2, on_error="open"), upstream=upstream, **options) as client:
        async with client.stream("GET", "/") as held:
            assert await held.chunk() == b"first"
            assert redis.talk("ZCARD", key) == b":1\r\n"
            redis.freeze()
            upstream.proceed()
            await held.read()
        upstream.waits = "never"
        assert (await client.get("/")).status == 200
        redis.thaw()
        async with asyncio.timeout(10):
            while redis.talk("ZCARD", key) != b":0\r\n":
                await asyncio.sleep(0.02)
                assert (await client.get("/")).status == 200


class Mute(MemoryStore):
    """Does what it is asked for, and says nothing while it is mute."""

    mute = False

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Arg]) -> Sequence[int]:
        answer = await super().run(script, keys, args)
        if self.mute:
            raise StoreError("mute")
        return answer


async def test_a_caller_is_not_refused_for_slots_that_nobody_has() -> None:
    def never(coroutine: Coroutine[Any, Any, None]) -> bool:
        coroutine.close()
        return False

    store = Mute(lambda: 0.0)
    slots = SharedSlots(store, 1, 30, "slots", LocalSlots(1), "open")
    store.mute = True
    give = await slots.take("acme", never)
    assert give is not None
    give()
    store.mute = False
    # One by one: each slot that could not be given back beside the requests is given back when it is missed.
    for _ in range(3):
        give = await slots.take("acme", never)
        assert give is not None
        assert await slots.take("acme", never) is None
        give()
