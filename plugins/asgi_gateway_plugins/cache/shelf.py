"""What is kept of answers in the memory of a process: within a bound of bytes, by URL and by tag."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from cachetools import LRUCache

from asgi_gateway.asgi import Header, Headers

from .policy import Term, chosen

if TYPE_CHECKING:
    from .flight import Flight

Url = tuple[str, bytes, bytes, bytes]
"""Scheme, authority, path, query."""
Key = tuple[Any, ...]
"""Place, upstream and identity, then the URL; for one of several answers that vary, what chose it."""

VARIANTS = 64
"""Answers to one URL that vary; the oldest goes for the next."""
OVERHEAD = 1024
"""Bytes that an entry takes up beside its body and its fields."""
REMEMBERED = 10_000
"""URLs of which it is remembered that their answers are not kept."""
IDENTITY = 3
"""Parts of a key before the URL."""


class Entry:
    """An answer that is kept. It is replaced, never changed."""

    __slots__ = (
        "body",
        "fresh_until",
        "headers",
        "if_error_until",
        "made",
        "refreshing",
        "revalidate_until",
        "size",
        "status",
        "tags",
        "term",
    )

    def __init__(
        self,
        status: int,
        headers: list[Header],
        body: bytes,
        term: Term,
        came: float,
        tags: tuple[bytes, ...] = (),
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.term = term
        self.made = came - term.age
        """When it was made, in monotonic seconds: as old as that it is."""
        self.fresh_until = self.made + term.lifetime
        self.revalidate_until = self.fresh_until + term.while_revalidate
        self.if_error_until = self.fresh_until + term.if_error
        self.tags = tags
        self.refreshing = False
        """Whether it is fetched anew already, beside the requests."""
        self.size = OVERHEAD + len(body) + sum([len(name) + len(value) for name, value in headers])

    def may_stand_in(self, now: float) -> bool:
        """Whether it may be used, fresh or not, where the origin cannot be reached (RFC 9111 4.2.4)."""
        return not self.term.strict or now < self.if_error_until


class Varying:
    """Stands where answers differ: by which fields, and which ones there are."""

    __slots__ = ("fields", "keys", "size")

    def __init__(self, fields: tuple[bytes, ...]) -> None:
        self.fields = fields
        self.keys: dict[Key, None] = {}
        """Oldest first."""
        self.size = OVERHEAD


Kept = Entry | Varying


class Entries(LRUCache[Key, Kept]):
    """The least recently used go; whatever goes is told to `dropped`."""

    def __init__(self, most: int, dropped: Callable[[Key, Kept], None]) -> None:
        super().__init__(most, getsizeof=size_of)
        self._dropped = dropped

    def __delitem__(self, key: Key) -> None:
        kept = LRUCache.__getitem__(self, key)
        super().__delitem__(key)
        self._dropped(key, kept)


def size_of(kept: Kept) -> int:
    return kept.size


class Shelf:
    """All that is kept, and what is being fetched."""

    def __init__(self, most: int) -> None:
        self._entries = Entries(most, self._dropped)
        self._urls: dict[Url, set[Key]] = {}
        self._tags: dict[bytes, set[Key]] = {}
        self.flights: dict[Key, Flight] = {}
        self.aloft: set[Flight] = set()
        """All fetches that are under way, also those that nobody may join any more."""
        self.filling = 0
        """Bytes of answers that are not complete yet."""
        self.passing: LRUCache[Key, float] = LRUCache(REMEMBERED)
        """Until when a URL's answers are taken not to be kept."""
        self.get: Callable[[Key], Kept | None] = self._entries.get

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return int(self._entries.currsize)

    @property
    def most(self) -> int:
        return int(self._entries.maxsize)

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: Key, headers: Headers) -> tuple[Key, Entry | None]:
        """The answer to a request, and the key that it has, or would have."""
        kept = self.get(key)
        if isinstance(kept, Varying):
            key = (*key, *chosen(kept.fields, headers))
            found = self.get(key)
            return key, found if isinstance(found, Entry) else None
        return key, kept

    def vary(self, key: Key, fields: tuple[bytes, ...], headers: Headers) -> Key:
        """The key of an answer to a request that was chosen by these fields."""
        kept = self._entries.get(key)
        if not fields:
            if isinstance(kept, Varying):
                self.forget(key)
            return key
        if not isinstance(kept, Varying) or kept.fields != fields:
            self.forget(key)
            self._add(key, Varying(fields))
        return (*key, *chosen(fields, headers))

    def keep(self, base: Key, key: Key, entry: Entry) -> bool:
        """Keep an answer; `base` is its key without what it varies by. False: it is too large."""
        if entry.size > self._entries.maxsize:
            return False
        varying = None
        if key != base:
            varying = self._entries.get(base)
            if not isinstance(varying, Varying):
                return False  # it was purged, or had to go, in the meantime
            if key not in varying.keys and len(varying.keys) >= VARIANTS:
                self.forget(next(iter(varying.keys)))
        self.forget(key)
        self._add(key, entry)
        if isinstance(varying, Varying) and self._entries.get(base) is varying:
            varying.keys[key] = None
        for tag in entry.tags:
            self._tags.setdefault(tag, set()).add(key)
        return True

    def _add(self, key: Key, kept: Kept) -> None:
        self._entries[key] = kept
        self._urls.setdefault(url_of(key), set()).add(key)

    def _dropped(self, key: Key, kept: Kept) -> None:
        """It is gone from the entries: nothing may point to it any more."""
        discard(self._urls, url_of(key), key)
        if isinstance(kept, Varying):
            for each in list(kept.keys):
                self.forget(each)
            return
        for tag in kept.tags:
            discard(self._tags, tag, key)
        varying = self._entries.get(base_of(key)) if len(key) > BASE else None
        if isinstance(varying, Varying):
            varying.keys.pop(key, None)

    def forget(self, key: Key) -> None:
        self._entries.pop(key, None)

    # What is no longer true

    def purge_urls(self, urls: Iterable[Url]) -> int:
        """Forget all answers to these URLs; how many there were."""
        wanted = set(urls)
        self._ground(lambda flight: url_of(flight.key) in wanted)
        return self._purge(key for url in wanted for key in tuple(self._urls.get(url, ())))

    def purge_path(self, path: bytes, query: bytes) -> int:
        """The same whatever the host."""
        return self.purge_urls(
            [url for url in self._urls if url[2:] == (path, query)] + self._aloft(path, query)
        )

    def purge_tag(self, tag: bytes) -> int:
        self._ground(lambda flight: True)
        return self._purge(tuple(self._tags.get(tag, ())))

    def purge_place(self, place: str) -> int:
        """All answers of one component at its place."""
        self._ground(lambda flight: flight.key[0] == place)
        return self._purge([key for key in self._entries if key[0] == place])

    def clear(self) -> int:
        self._ground(lambda flight: True)
        return self._purge(list(self._entries))

    def _purge(self, keys: Iterable[Key]) -> int:
        gone = 0
        for key in keys:
            gone += isinstance(self._entries.pop(key, None), Entry)
        return gone

    def _ground(self, is_meant: "Callable[[Flight], bool]") -> None:
        """What is fetched already may be what was purged: those who wait get it, and it is not kept."""
        for flight in self.aloft:
            if is_meant(flight):
                flight.purge()
                if self.flights.get(flight.name) is flight:
                    del self.flights[flight.name]

    def _aloft(self, path: bytes, query: bytes) -> list[Url]:
        return [url_of(flight.key) for flight in self.aloft if url_of(flight.key)[2:] == (path, query)]

    async def close(self) -> None:
        """End what is fetched still."""
        for flight in tuple(self.aloft):
            await flight.abandon()
        # What was to begin beside the requests may never have begun.
        self.flights.clear()
        self.aloft.clear()
        self.filling = 0


BASE = IDENTITY + 4
"""Parts of a key without what it varies by."""


def url_of(key: Key) -> Url:
    scheme, authority, path, query = key[IDENTITY:BASE]
    return scheme, authority, path, query


def base_of(key: Key) -> Key:
    return key[:BASE]


def discard(index: dict[Any, set[Key]], name: Any, key: Key) -> None:
    keys = index.get(name)
    if keys is not None:
        keys.discard(key)
        if not keys:
            del index[name]
