"""What every store does, and how the memory store stays bounded."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from asgi_gateway.errors import ConfigError
from asgi_gateway.store import Arg, Guarded, MemoryStore, Script, Store, open_store
from asgi_gateway_contrib.redis import RedisStore
from tests.redis_server import RedisServer

KINDS: dict[str, type[Store]] = dict.fromkeys(RedisStore.schemes, RedisStore)
LUA = """
local before = tonumber(redis.call('GET', KEYS[1]) or '0')
redis.call('SET', KEYS[1], before + ARGV[1])
return {before, before + ARGV[1]}
"""


async def add_up(memory: MemoryStore, keys: Sequence[str], args: Sequence[Arg]) -> list[int]:
    before = memory.read(keys[0]) or 0
    memory.write(keys[0], before + int(args[0]), 60)
    return [before, before + int(args[0])]


ADD = Script("add", LUA, add_up)


class Time:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    url = "memory://"
    if request.param == "redis":
        url = request.getfixturevalue("redis").url
    store = open_store(url, KINDS, timeout=5.0, prefix="test", now=asyncio.get_running_loop().time)
    yield store
    await store.aclose()


async def test_what_is_written_is_there_until_it_expires(store: Store) -> None:
    assert await store.get("a") is None
    await store.set("a", b"1", 60)
    assert await store.get("a") == b"1"
    await store.set("a", b"2", 0.05)
    assert await store.get("a") == b"2"
    await asyncio.sleep(0.1)
    assert await store.get("a") is None


async def test_several_keys_are_read_at_once(store: Store) -> None:
    await store.set("a", b"1", 60)
    await store.set("c", b"\xff", 60)
    assert await store.get_many(["a", "b", "c"]) == [b"1", None, b"\xff"]
    assert await store.get_many([]) == []


async def test_of_many_who_add_one_succeeds(store: Store) -> None:
    added = await asyncio.gather(*(store.add("nonce", b"%d" % number, 60) for number in range(20)))
    assert sum(added) == 1
    assert [await store.delete("nonce"), await store.delete("nonce")] == [True, False]
    assert await store.add("nonce", b"", 60)


async def test_a_script_is_one_step(store: Store) -> None:
    answers = await asyncio.gather(*(store.run(ADD, ["sum"], [2]) for _ in range(50)))
    assert sorted(before for before, _ in answers) == list(range(0, 100, 2))


async def test_memory_forgets_what_is_unseen_for_longest() -> None:
    time = Time()
    store = MemoryStore.open("memory://?max_keys=100", timeout=1, now=time)
    await store.set("seen", b"", 3600)
    for number in range(1000):
        await store.set(str(number), b"", 3600)
        assert await store.get("seen") is not None
    assert len(store) == 100
    time.seconds += 3601
    assert await store.get("seen") is None


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (
            "moon://x:secret@y",
            "store: no store has the scheme 'moon' (known: memory://, redis://, rediss://)",
        ),
        ("memory://?most=1", "store: the memory store has one option (memory://?max_keys=200000)"),
        ("memory://?max_keys=0", "store: the memory store has one option (memory://?max_keys=200000)"),
        ("redis://:secret@h/0?nonsense=1", "store: is not a URL of Redis"),
        ("redis://:secret@h:port", "store: is not a URL of Redis"),
    ],
)
def test_a_wrong_url_is_told_without_its_password(url: str, says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        open_store(url, KINDS, timeout=1, prefix="", now=lambda: 0)
    assert str(raised.value).startswith(says)
    assert "secret" not in str(raised.value)


async def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    with pytest.raises(ConfigError, match=r"pip install \"asgi-gateway\[redis\]\""):
        open_store("redis://127.0.0.1", {}, timeout=1, prefix="", now=lambda: 0)
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(ConfigError, match=r"pip install \"asgi-gateway\[redis\]\""):
        open_store("redis://127.0.0.1", KINDS, timeout=1, prefix="", now=lambda: 0)


async def test_a_decision_is_one_round_trip_also_after_a_restart(redis: RedisServer) -> None:
    store = RedisStore.open(redis.url, timeout=5, now=lambda: 0)

    def calls(name: str) -> int:
        found = redis.talk("INFO", "commandstats").decode().partition(f"cmdstat_{name}:calls=")[2]
        return int(found.partition(",")[0] or 0)

    for number in range(5):
        assert await store.run(ADD, ["sum"], [1]) == [number, number + 1]
    # The first one was not known there yet.
    assert (calls("evalsha"), calls("eval")) == (5, 1)
    redis.kill()
    redis.start()
    await asyncio.sleep(0.05)
    assert await store.run(ADD, ["sum"], [1]) == [0, 1]
    await store.aclose()


async def test_a_store_serves_one_event_loop_after_the_other(redis: RedisServer) -> None:
    store = RedisStore.open(redis.url, timeout=5, now=lambda: 0)
    await store.set("a", b"1", 60)

    def elsewhere() -> Any:
        async def look() -> bytes | None:
            try:
                return await store.get("a")
            finally:
                await store.aclose()

        return asyncio.run(look())

    await store.aclose()
    assert await asyncio.to_thread(elsewhere) == b"1"


async def test_keys_begin_with_the_prefix(redis: RedisServer) -> None:
    store = open_store(redis.url, KINDS, timeout=5, prefix="mine", now=lambda: 0)
    assert isinstance(store, Guarded)
    await store.set("a", b"", 60)
    await store.run(ADD, ["b"], [1])
    await store.aclose()
    assert b"mine:a" in redis.talk("KEYS", "*")
    assert b"mine:b" in redis.talk("KEYS", "*")
