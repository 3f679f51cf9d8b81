"""Who has which slot: the counters of one process, or leases in a store that workers share."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from os import urandom
from typing import Any, Protocol

from asgi_gateway.store import Arg, MemoryStore, Script, Store, StoreError

from ..rate_limit.options import OnError

MOST_OWED = 10_000
"""Callers to whom slots are given back when the store is there again."""

# A slot is a member of a sorted set, with the time until which it is leased. A lease that is later than any
# can be was given before the clock was set back.
TIME = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease = tonumber(ARGV[1])
"""
ACQUIRE = (
    TIME
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', now + lease), '+inf')
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return {0} end
redis.call('ZADD', KEYS[1], now + lease, ARGV[3])
redis.call('PEXPIRE', KEYS[1], lease)
return {1}
"""
)
RENEW = (
    TIME
    + """
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], now + lease, ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], lease)
return {#ARGV - 1}
"""
)
RELEASE = """
local gone = 0
for i = 1, #ARGV do gone = gone + redis.call('ZREM', KEYS[1], ARGV[i]) end
return {gone}
"""


async def acquire(memory: MemoryStore, keys: Sequence[str], args: Sequence[Arg]) -> list[int]:
    lease, limit, token = float(args[0]) / 1000, int(args[1]), str(args[2])
    held = leased(memory, keys[0])
    if len(held) >= limit:
        return [0]
    memory.write(keys[0], {**held, token: memory.now() + lease}, lease)
    return [1]


async def renew(memory: MemoryStore, keys: Sequence[str], args: Sequence[Arg]) -> list[int]:
    lease = float(args[0]) / 1000
    again = {str(token): memory.now() + lease for token in args[1:]}
    memory.write(keys[0], leased(memory, keys[0]) | again, lease)
    return [len(again)]


async def release(memory: MemoryStore, keys: Sequence[str], args: Sequence[Arg]) -> list[int]:
    held = leased(memory, keys[0])
    gone = sum(held.pop(str(token), None) is not None for token in args)
    memory.write(keys[0], held, max(held.values(), default=memory.now()) - memory.now())
    return [gone]


def leased(memory: MemoryStore, key: str) -> dict[str, float]:
    """The slots under a key whose time is not over."""
    now = memory.now()
    return {token: until for token, until in (memory.read(key) or {}).items() if until > now}


ACQUIRING = Script("concurrency acquire", ACQUIRE, acquire)
RENEWING = Script("concurrency renew", RENEW, renew)
RELEASING = Script("concurrency release", RELEASE, release)


Spawn = Callable[[Coroutine[Any, Any, None]], bool]
Give = Callable[[], object]


class Slots(Protocol):
    """Who has which slot."""

    async def take(self, caller: str, spawn: Spawn) -> Give | None:
        """What gives the slot back, once; None if there is none."""
        ...


class LocalSlots:
    """The slots of one process: as many numbers as there are callers with requests in flight."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.taken: dict[str, int] = {}

    async def take(self, caller: str, spawn: Spawn) -> Give | None:
        if self.taken.get(caller, 0) >= self._limit:
            return None
        return self.add(caller)

    def add(self, caller: str) -> Give:
        """One more, whatever the limit says."""
        self.taken[caller] = self.taken.get(caller, 0) + 1
        return partial(self._give, caller)

    def _give(self, caller: str) -> None:
        left = self.taken[caller] - 1
        if left:
            self.taken[caller] = left
        else:
            del self.taken[caller]


class SharedSlots:
    """Slots in a store, each leased: what a process that was killed had is free when its lease is over."""

    def __init__(
        self, store: Store, limit: int, lease: float, base: str, local: LocalSlots, on_error: OnError
    ) -> None:
        self._store = store
        self._limit = limit
        self._lease = lease
        self._base = base
        self._local = local
        self._held: dict[str, set[str]] = {}
        self._owed: dict[str, set[str]] = {}
        """Slots that nobody has: the store was away when they were to be given back, or gave them without
        being able to say so.
        """
        self._settling = False
        self._on_error = on_error

    async def take(self, caller: str, spawn: Spawn) -> Give | None:
        key, token = f"{self._base}{{{caller}}}", urandom(8).hex()
        args: list[Arg] = [round(self._lease * 1000), self._limit, token]
        try:
            (taken,) = await self._store.run(ACQUIRING, [key], args)
            if not taken and key in self._owed:
                await self._settle(key)
                (taken,) = await self._store.run(ACQUIRING, [key], args)
        except StoreError as error:
            if error.asked:
                self._owe(key, token)
            if self._on_error == "closed":
                raise
            if self._on_error == "open":
                return self._local.add(caller)
            return await self._local.take(caller, spawn)
        except asyncio.CancelledError:
            # It may have been given all the same.
            self._give_back(key, token, spawn)
            raise
        if self._owed and not self._settling:
            spawn(self.settle())
        if not taken:
            return None
        self._held.setdefault(key, set()).add(token)
        # Counted here, too: for times in which the store does not count.
        return partial(self._give, key, token, self._local.add(caller), spawn)

    def _give(self, key: str, token: str, give_here: Give, spawn: Spawn) -> None:
        give_here()
        held = self._held[key]
        held.discard(token)
        if not held:
            del self._held[key]
        self._give_back(key, token, spawn)

    def _give_back(self, key: str, token: str, spawn: Spawn) -> None:
        if not spawn(self._release(key, token)):
            self._owe(key, token)

    async def _release(self, key: str, token: str) -> None:
        try:
            await self._store.run(RELEASING, [key], [token])
        except StoreError:
            self._owe(key, token)

    def _owe(self, key: str, token: str) -> None:
        # What is forgotten here is free when its lease is over. More are asked for than can be given.
        tokens = self._owed.setdefault(key, set())
        if len(self._owed) <= MOST_OWED and len(tokens) < 4 * self._limit + 16:
            tokens.add(token)
        elif not tokens:
            del self._owed[key]

    async def settle(self) -> None:
        """Give back what could not be given back before."""
        self._settling = True
        try:
            for key in list(self._owed):
                with suppress(StoreError):
                    await self._settle(key)
        finally:
            self._settling = False

    async def _settle(self, key: str) -> None:
        tokens = frozenset(self._owed.get(key, ()))
        if tokens:
            await self._store.run(RELEASING, [key], [*tokens])
        left = self._owed.get(key, set())
        left -= tokens
        if not left:
            self._owed.pop(key, None)

    async def renew(self) -> None:
        """Keep what is held, for as long as this runs."""
        while True:
            await asyncio.sleep(self._lease / 3)
            await self.settle()
            for key in list(self._held):
                await self._renew(key, frozenset(self._held.get(key, ())))

    async def _renew(self, key: str, tokens: frozenset[str]) -> None:
        if tokens:
            with suppress(StoreError):
                await self._store.run(RENEWING, [key], [round(self._lease * 1000), *tokens])
        # Given back in the meantime, and taken again by that.
        for token in tokens - self._held.get(key, set()):
            await self._release(key, token)
