"""The second level of a cache: a store that processes share. What it may cost a request, the store bounds."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from hashlib import blake2b
from os import urandom
from typing import Any

from asgi_gateway.asgi import Headers
from asgi_gateway.clock import Clock
from asgi_gateway.store import Arg, MemoryStore, Script, Store, StoreError

from .policy import Term, chosen
from .shelf import Entry, Key, Shelf, url_of

VERSION = 1
LONGEST = 86400.0
"""Seconds that an answer stays in the store at most."""
MARKED = 2 * LONGEST
"""Seconds for which a purge is remembered: longer than anything that was there before."""
LOG = "cache/purged"
LOGGED = 3600
PERIOD = 1.0
"""Seconds after which the other processes hear of a purge."""
MOST_READ = 200
"""Purges that are read at once; who is further behind forgets everything."""

PURGE = """
local number = redis.call('INCR', KEYS[1])
redis.call('EXPIRE', KEYS[1], 604800)
redis.call('SET', KEYS[1] .. '/' .. number, ARGV[1], 'EX', ARGV[2])
return {number}
"""


async def purge(memory: MemoryStore, keys: Sequence[str], args: Sequence[Arg]) -> list[int]:
    number = int(memory.read(keys[0]) or 0) + 1
    memory.write(keys[0], str(number).encode(), 604800)
    memory.write(f"{keys[0]}/{number}", str(args[0]).encode(), float(args[1]))
    return [number]


PURGING = Script("cache purge", PURGE, purge)


class Second:
    """Answers in a store, found by the digest of their key, and the news of what was purged."""

    def __init__(self, store: Store, shelf: Shelf, clock: Clock) -> None:
        self._store = store
        self._shelf = shelf
        self._clock = clock
        self._heard = -1
        """The number of the last purge that was heard of."""

    async def find(
        self, base: Key, headers: Headers
    ) -> tuple[tuple[bytes, ...], tuple[tuple[bytes, ...], Entry] | None]:
        """The marks of what was purged last, and an answer with the fields by which it varies, if there is
        one.
        """
        try:
            found, *marks = await self._store.get_many([entry_key(base), *mark_keys(base), LOG])
            now = tuple([mark or b"" for mark in marks])
            record = decode(found)
            if record is None:
                return now, None
            fields = tuple(record[1])
            if record[2] is None:
                record = decode(await self._store.get(entry_key((*base, *chosen(fields, headers)))))
                if record is None or record[2] is None:
                    return now, None
            if tuple(record[9]) != now[:-1]:
                return now, None
            if tags := record[7]:
                marked = await self._store.get_many([mark_key("t", tag) for tag in tags])
                if [mark or b"" for mark in marked] != record[8]:
                    return now, None
            return now, (fields, self._entry(record))
        except StoreError:
            return (), None

    def _entry(self, record: list[Any]) -> Entry:
        _, _, status, headers, body, term, made, tags, _, _ = record
        age = max(0.0, self._clock.time() - made)
        lifetime, strict, while_revalidate, if_error, open_to_all, guessed = term
        found = Term(lifetime, age, strict, while_revalidate, if_error, open_to_all, guessed)
        fields = [(name, value) for name, value in headers]
        return Entry(status, fields, body, found, self._clock.monotonic(), tuple(tags))

    async def keep(
        self,
        base: Key,
        fields: tuple[bytes, ...],
        headers: Headers,
        entry: Entry,
        marks: tuple[bytes, ...],
    ) -> None:
        """Keep an answer for as long as it can be used, unless it was purged since it was asked for."""
        now = self._clock.monotonic()
        ttl = min(LONGEST, max(entry.fresh_until, entry.revalidate_until, entry.if_error_until) - now)
        if ttl <= 0 or not marks:
            return
        term, made = entry.term, self._clock.time() - (now - entry.made)
        with suppress(StoreError):
            tags = [mark_key("t", tag) for tag in entry.tags]
            there = await self._store.get_many([*mark_keys(base), LOG, *tags])
            current = [mark or b"" for mark in there]
            if tuple(current[: len(marks)]) != marks:
                return
            said = (
                term.lifetime,
                term.strict,
                term.while_revalidate,
                term.if_error,
                term.open_to_all,
                term.guessed,
            )
            record = [
                VERSION,
                fields,
                entry.status,
                entry.headers,
                entry.body,
                said,
                made,
                entry.tags,
                current[len(marks) :],
                marks[:-1],
            ]
            key = base
            if fields:
                key = (*base, *chosen(fields, headers))
                await self._store.set(entry_key(base), encode([VERSION, fields, None]), ttl)
            await self._store.set(entry_key(key), encode(record), ttl)

    # Purges

    async def purge_paths(self, paths: Iterable[tuple[bytes, bytes]]) -> None:
        """Forget the answers to these paths with their queries, whatever the host."""
        for path, query in paths:
            await self._mark("u", repr((path, query)))
            await self._tell("u", path.decode("latin-1"), query.decode("latin-1"))

    async def changed(self, paths: Iterable[tuple[bytes, bytes]]) -> None:
        """The same, where nobody could be told that the store is away."""
        with suppress(StoreError):
            await self.purge_paths(paths)

    async def purge_tag(self, tag: bytes) -> None:
        await self._mark("t", tag)
        await self._tell("t", tag.decode("latin-1"))

    async def purge_place(self, place: str) -> None:
        await self._mark("p", place)
        await self._tell("p", place)

    async def _mark(self, kind: str, name: bytes | str) -> None:
        await self._store.set(mark_key(kind, name), urandom(8), MARKED)

    async def _tell(self, *words: str) -> None:
        await self._store.run(PURGING, [LOG], ["\n".join(words), LOGGED])

    async def watch(self) -> None:
        """Hear of what other processes purge, for as long as this runs."""
        while True:
            await self.listen()
            await asyncio.sleep(PERIOD)

    async def listen(self) -> None:
        """Forget what was purged elsewhere."""
        with suppress(StoreError):
            last = int(await self._store.get(LOG) or 0)
            first, self._heard = self._heard, last
            if first in (-1, last):
                return
            if not 0 <= last - first <= MOST_READ:
                self._shelf.clear()
                return
            keys = [f"{LOG}/{number}" for number in range(first + 1, last + 1)]
            try:
                told = await self._store.get_many(keys)
            except StoreError:
                self._heard = first
                raise
            for words in told:
                self._forget(words)

    def _forget(self, words: bytes | None) -> None:
        kind, *parts = (words or b"").decode(errors="replace").split("\n")
        if kind == "u" and len(parts) == 2:
            self._shelf.purge_path(
                parts[0].encode("latin-1", "replace"), parts[1].encode("latin-1", "replace")
            )
        elif kind == "t" and len(parts) == 1:
            self._shelf.purge_tag(parts[0].encode("latin-1", "replace"))
        elif kind == "p" and len(parts) == 1:
            self._shelf.purge_place(parts[0])
        else:
            self._shelf.clear()


def digest(name: bytes) -> str:
    return blake2b(name, digest_size=16).hexdigest()


def entry_key(key: Key) -> str:
    return f"cache/e/{digest(repr(key).encode())}"


def mark_key(kind: str, name: bytes | str) -> str:
    return f"cache/{kind}/{digest(name if isinstance(name, bytes) else name.encode())}"


def mark_keys(base: Key) -> list[str]:
    """Where it stands when the URL, and everything at this place, was purged last."""
    return [mark_key("u", repr(url_of(base)[2:])), mark_key("p", base[0])]


def encode(record: list[Any]) -> bytes:
    from msgspec import msgpack

    return msgpack.encode(record)


def decode(value: bytes | None) -> list[Any] | None:
    """A record, or None for what is none, or of another version."""
    if value is None:
        return None
    from msgspec import MsgspecError, msgpack

    try:
        record = msgpack.decode(value)
    except MsgspecError:
        return None
    return record if isinstance(record, list) and record and record[0] == VERSION else None
