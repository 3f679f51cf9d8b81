"""Which keys are in use, and what the requests with them were answered."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from os import urandom
from typing import Any, Protocol

from cachetools import LRUCache

from asgi_gateway.asgi import Header
from asgi_gateway.store import Arg, MemoryStore, Script, Store, StoreError

Spawn = Callable[[Coroutine[Any, Any, None]], bool]

OVERHEAD = 1024
"""Bytes that an answer takes up beside its body and its fields."""
RUNNING, DONE = b"r", b"d"
MARK = 16
"""Bytes of the digest of a request."""

# Who has lost its lease may not change what another one does since.
REPLACE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {0} end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return {1}
"""
REMOVE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {0} end
return {redis.call('DEL', KEYS[1])}
"""


async def replace(memory: MemoryStore, keys: Sequence[str], args: Sequence[Arg]) -> list[int]:
    if memory.read(keys[0]) != args[0]:
        return [0]
    memory.write(keys[0], args[1], float(args[2]) / 1000)
    return [1]


async def remove(memory: MemoryStore, keys: Sequence[str], args: Sequence[Arg]) -> list[int]:
    if memory.read(keys[0]) != args[0]:
        return [0]
    await memory.delete(keys[0])
    return [1]


REPLACING = Script("idempotency replace", REPLACE, replace)
REMOVING = Script("idempotency remove", REMOVE, remove)


@dataclass(frozen=True, slots=True)
class Answered:
    """What a request was answered."""

    mark: bytes
    """The digest of the request."""
    status: int
    headers: list[Header]
    body: bytes | None
    """None: it was too large to be kept."""
    until: float = 0.0
    """Monotonic seconds."""

    @property
    def size(self) -> int:
        fields = sum([len(name) + len(value) for name, value in self.headers])
        return OVERHEAD + len(self.body or b"") + fields


@dataclass(frozen=True, slots=True)
class Running:
    """A request with this key is under way."""

    mark: bytes


class Held(Protocol):
    """A key that was free."""

    async def finish(self, answered: Answered | None, ttl: float) -> None:
        """Keep the answer for so many seconds; None: the key is free again."""
        ...


class Ledger(Protocol):
    async def take(self, key: str, mark: bytes) -> Held | Running | Answered:
        """Use a key; or what is known about the request that uses it."""
        ...


class LocalLedger:
    """In the memory of this process. What is under way is never forgotten, answers are bounded in bytes."""

    def __init__(self, most: int, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.running: dict[str, bytes] = {}
        self.done: LRUCache[str, Answered] = LRUCache(most, getsizeof=size_of)

    async def take(self, key: str, mark: bytes) -> Held | Running | Answered:
        if key in self.running:
            return Running(self.running[key])
        found = self.done.get(key)
        if found is not None and found.until > self._monotonic():
            return found
        self.running[key] = mark
        return LocalHeld(self, key)

    async def close(self) -> None:
        """Nothing is under way any more."""
        self.running.clear()

    def finish(self, key: str, answered: Answered | None, ttl: float) -> None:
        self.running.pop(key, None)
        self.done.pop(key, None)
        if answered is not None and answered.size <= self.done.maxsize:
            until = self._monotonic() + ttl
            self.done[key] = Answered(answered.mark, answered.status, answered.headers, answered.body, until)


class LocalHeld:
    """A key in the memory of this process."""

    __slots__ = ("_key", "_ledger")

    def __init__(self, ledger: LocalLedger, key: str) -> None:
        self._ledger = ledger
        self._key = key

    async def finish(self, answered: Answered | None, ttl: float) -> None:
        self._ledger.finish(self._key, answered, ttl)


class SharedLedger:
    """In a store. A key that is in use is leased: that of a process that was killed is free in the end."""

    def __init__(self, store: Store, base: str, lease: float, spawn: Spawn) -> None:
        self._store = store
        self._spawn = spawn
        self._base = base
        self._lease = lease
        self.held: dict[str, bytes] = {}

    async def take(self, key: str, mark: bytes) -> Held | Running | Answered:
        name = f"{self._base}/{key}"
        mine = RUNNING + mark + urandom(8)
        try:
            added = await self._store.add(name, mine, self._lease)
        except asyncio.CancelledError:
            # It may have been written all the same.
            self._spawn(self._undo(name, mine))
            raise
        if added:
            self.held[name] = mine
            return SharedHeld(self, name, mine)
        found = await self._store.get(name)
        if found is None:
            return Running(mark)  # it ended just now: the caller comes again
        return read(found)

    async def finish(self, name: str, mine: bytes, answered: Answered | None, ttl: float) -> None:
        try:
            if answered is None:
                await self._store.run(REMOVING, [name], [mine])
            else:
                await self._store.run(REPLACING, [name], [mine, write(answered), max(1, round(ttl * 1000))])
        finally:
            self.held.pop(name, None)

    async def _undo(self, name: str, mine: bytes) -> None:
        with suppress(StoreError):
            await self._store.run(REMOVING, [name], [mine])

    async def renew(self) -> None:
        """Keep the leases of what is under way, for as long as this runs."""
        while True:
            await asyncio.sleep(self._lease / 3)
            await self.renew_all()

    async def renew_all(self) -> None:
        for name, mine in list(self.held.items()):
            if self.held.get(name) is mine:
                with suppress(StoreError):
                    await self._store.run(REPLACING, [name], [mine, mine, round(self._lease * 1000)])


class SharedHeld:
    """A key that is leased."""

    __slots__ = ("_ledger", "_mine", "_name")

    def __init__(self, ledger: SharedLedger, name: str, mine: bytes) -> None:
        self._ledger = ledger
        self._name = name
        self._mine = mine

    async def finish(self, answered: Answered | None, ttl: float) -> None:
        await self._ledger.finish(self._name, self._mine, answered, ttl)


def size_of(answered: Answered) -> int:
    return answered.size


def write(answered: Answered) -> bytes:
    from msgspec import msgpack

    return DONE + answered.mark + msgpack.encode((answered.status, answered.headers, answered.body))


def read(value: bytes) -> Running | Answered:
    """What another request wrote."""
    from msgspec import msgpack

    kind, mark = value[:1], value[1 : 1 + MARK]
    if kind == RUNNING:
        return Running(mark)
    said = msgpack.decode(value[1 + MARK :], type=tuple[int, list[tuple[bytes, bytes]], bytes | None])
    status, headers, body = said
    return Answered(mark, status, headers, body)
