"""So many requests at one time, for each caller."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from functools import partial
from os import urandom
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send
from asgi_gateway.component import Build, Component, Refusal
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.stage import Stage
from asgi_gateway.store import Arg, MemoryStore, Script, Store, StoreError
from asgi_gateway.units import Span

from .caller import known_caller, path_variable
from .rate_limit.options import AGAIN, STORE_AWAY, UNIDENTIFIED, By, OnError, Prefix, identifying

MOST_OWED = 10_000
"""Callers to whom slots are given back when the store is there again."""
AT_ONCE = "This caller has too many requests in flight."

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


class Concurrency(
    Component,
    name="concurrency",
    stage=Stage.LIMIT,
    rank=10,
    serves=frozenset({"http", "websocket"}),
    refuses=True,
):
    """Admits so many requests of a caller at one time, and refuses the rest with 429.

    A slot is held until the last byte of the answer, or the end of the WebSocket.
    """

    limit: Annotated[int, Field(ge=1)]
    """Requests in flight at one time."""
    by: By = "ip"
    """Whose requests are counted together, as in `rate_limit`."""
    unidentified: Literal["ip", "refuse"] = "ip"
    """Callers without what `by` asks for are counted by their address, or refused with 403."""
    group: str = ""
    """Limits of one group count together, on all routes. Empty: each for itself."""
    ipv6_prefix: Prefix = 64
    """IPv6 addresses that agree in so many bits are one caller."""
    lease: Span = 30.0
    """In a shared store: how long the slots of a process that was killed stay taken."""
    on_error: OnError = "local"
    """While a shared store is away: `local` counts in this process, `open` admits, `closed` answers 503."""

    def variables(self) -> Iterable[str]:
        return path_variable(self.by)

    def needs_caller(self) -> str:
        return known_caller(self.by)

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        refuse, slots, spawn = build.refuse(app), self.slots(build), build.spawn
        identify = identifying(self.by, self.unidentified, self.ipv6_prefix)

        async def concurrency(scope: Scope, receive: Receive, send: Send) -> None:
            exchange: Exchange = scope[EXCHANGE]
            caller = identify(scope, exchange)
            if not caller:
                await refuse(scope, receive, send, UNIDENTIFIED)
                return
            try:
                give = await slots.take(caller, spawn)
            except StoreError:
                exchange.tag("store", "away")
                await refuse(scope, receive, send, STORE_AWAY)
                return
            if give is None:
                await refuse(scope, receive, send, Refusal(429, "too_many_at_once", AGAIN, AT_ONCE))
                return
            try:
                await app(scope, receive, send)
            finally:
                give()

        return concurrency

    def slots(self, build: Build) -> Slots:
        """Who has which slot; it survives a reload that does not change the rule."""
        common = bool(self.group) or self.by == "cluster"
        rule = (self.group, self.limit, self.by, self.ipv6_prefix)
        local = build.keep(("local", *rule), lambda: LocalSlots(self.limit), shared=common)
        if not (store := build.store).shared:
            return local
        place = f"{self.name}/group {self.group}" if common else build.place
        base = f"{place}/{self.by}/{self.limit}"
        return build.keep(
            ("shared", *rule, self.lease, store, self.on_error),
            lambda: SharedSlots(store, self.limit, self.lease, base, local, self.on_error),
            run=SharedSlots.renew,
            shared=common,
        )
