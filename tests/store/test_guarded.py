"""A store that is away costs little, and is asked again soon (P42)."""

import asyncio
import logging
import random
from collections.abc import Callable
from time import monotonic

import pytest

from asgi_gateway.store import Guarded, Store, StoreError
from asgi_gateway_contrib.redis import RedisStore
from tests.redis_server import RedisServer

from .test_stores import ADD, Time


class Broken(RedisStore, schemes=()):
    """Answers as it is told to."""

    def __init__(self) -> None:
        super().__init__("redis://nowhere", 1)
        self.asked = 0
        self.error: BaseException | None = None
        self.hangs = False

    @classmethod
    def open(cls, url: str, *, timeout: float, now: Callable[[], float]) -> "Broken":
        return cls()

    async def get(self, key: str) -> bytes | None:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return b""


def guarded(store: Store, now: Callable[[], float] = monotonic) -> Guarded:
    return Guarded(store, timeout=0.05, prefix="", now=now)


async def fails(store: Store) -> None:
    with pytest.raises(StoreError):
        await store.get("a")


async def test_after_three_failures_in_a_row_it_is_not_asked_for_a_second(
    caplog: pytest.LogCaptureFixture,
) -> None:
    time, broken = Time(), Broken()
    store = guarded(broken, time)
    broken.error = ValueError("of somebody else")
    await fails(store)
    await fails(store)
    broken.error = None
    assert await store.get("a") == b""
    broken.error = StoreError("away")
    for _ in range(10):
        await fails(store)
    assert (broken.asked, store.is_away, store.failures, store.skipped) == (6, True, 5, 7)
    time.seconds += 1.001
    await fails(store)
    await fails(store)
    assert broken.asked == 7
    time.seconds += 1.001
    broken.error = None
    assert [await store.get("a") for _ in range(3)] == [b""] * 3
    assert not store.is_away
    said = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert said == ["the store is away: away", "the store is back: redis://nowhere:6379"]


async def test_one_caller_probes_and_one_who_leaves_gives_the_probe_back() -> None:
    time, broken = Time(), Broken()
    store = guarded(broken, time)
    broken.error = StoreError("away")
    for _ in range(3):
        await fails(store)
    time.seconds += 1.001
    broken.hangs, broken.error = True, None
    probe = asyncio.create_task(store.get("a"))
    await asyncio.sleep(0)
    await fails(store)
    assert broken.asked == 4
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    broken.hangs = False
    assert await store.get("a") == b""


async def test_a_frozen_redis_costs_fifty_milliseconds_three_times_and_comes_back(redis: RedisServer) -> None:
    # Connections that stand already: on a busy machine, to open them may take longer than an answer may.
    store = guarded(inner := RedisStore.open(redis.url, timeout=5, now=monotonic))
    await inner.run(ADD, ["a"], [1])
    redis.freeze()
    took = []
    for _ in range(10):
        began = monotonic()
        with pytest.raises(StoreError):
            await store.run(ADD, ["a"], [1])
        took.append(monotonic() - began)
    assert max(took[3:]) < 0.05
    assert sum(took) < 1
    redis.thaw()
    began = monotonic()
    while True:
        try:
            await store.run(ADD, ["b"], [1])
            break
        except StoreError:
            await asyncio.sleep(0.02)
    assert monotonic() - began < 2
    await store.aclose()


async def test_a_killed_redis_fails_at_once_and_comes_back(redis: RedisServer) -> None:
    store = guarded(inner := RedisStore.open(redis.url, timeout=5, now=monotonic))
    await asyncio.gather(*(inner.run(ADD, ["a"], [1]) for _ in range(10)))
    redis.kill()
    for _ in range(5):
        with pytest.raises(StoreError):
            await store.run(ADD, ["a"], [1])
    assert store.is_away
    redis.start()
    async with asyncio.timeout(10):
        while store.is_away:
            await asyncio.sleep(0.02)
            try:
                await store.run(ADD, ["a"], [1])
            except StoreError:
                continue
    assert (await inner.run(ADD, ["a"], [1]))[0] >= 1
    await store.aclose()


async def test_a_connection_goes_on_opening_when_nobody_waits_for_it_any_more(redis: RedisServer) -> None:
    """Else a process with a short deadline, TLS and many callers would never have one."""
    redis_store = RedisStore.open(redis.url, timeout=5, now=monotonic)
    store = Guarded(redis_store, timeout=0.0001, prefix="", now=monotonic)
    await asyncio.gather(*(fails(store) for _ in range(10)))
    async with asyncio.timeout(5):
        while redis.connections() < 10:
            await asyncio.sleep(0.01)
    await asyncio.gather(*(redis_store.get("a") for _ in range(10)))
    assert redis.connections() == 10
    await store.aclose()
    async with asyncio.timeout(5):
        while redis.connections():
            await asyncio.sleep(0.01)


async def test_callers_who_leave_between_question_and_answer_take_no_connection_along(
    redis: RedisServer,
) -> None:
    """An answer that nobody waits for any more is nobody else's, either."""
    redis_store = RedisStore.open(f"{redis.url}?max_connections=5", timeout=5, now=monotonic)
    store = Guarded(redis_store, timeout=5, prefix="", now=monotonic)
    dice, loop = random.Random(4), asyncio.get_running_loop()
    wrong = []

    async def ask(number: int) -> None:
        name = str(number % 7)
        await store.set(name, name.encode(), 60)
        if (found := await store.get(name)) != name.encode():
            wrong.append(found)

    for _ in range(20):
        tasks = [asyncio.create_task(ask(number)) for number in range(50)]
        for task in tasks:
            loop.call_later(dice.random() * 0.01, task.cancel)
        await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(5):
        await asyncio.gather(*map(ask, range(20)))
    assert not wrong
    assert redis.connections() <= 5
    await store.aclose()
