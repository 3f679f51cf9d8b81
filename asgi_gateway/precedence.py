"""The only place that says which of the routes of one path goes first."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import parse_qsl

from .asgi import Scope
from .patterns import Pattern
from .predicates import Lookup, Predicate, holding

T = TypeVar("T")

FEW = 8
"""Entries that are asked one after the other; among more, the one that fits is looked up."""


@dataclass(slots=True, eq=False)
class Entry(Generic[T]):
    """One route of a table: which requests it is for, and what it leads to."""

    name: str
    pattern: Pattern
    payload: T
    methods: frozenset[str] = frozenset()
    """None: all."""
    hosts: tuple[str, ...] = ()
    """In lower case, without port; `*.example.com` for one or more labels below. None: all."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Names in lower case, and values; `*` for any value."""
    query: tuple[tuple[str, str], ...] = ()
    """Decoded names and values; `*` for any value."""
    priority: int = 0


class Facts:
    """What header and query predicates are asked about one request. The query is parsed once, if at all."""

    __slots__ = ("_query", "_scope")

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._query: list[tuple[str, str]] | None = None

    def fit(self, entry: Entry[T]) -> bool:
        if entry.headers and not all(self._has_header(*pair) for pair in entry.headers):
            return False
        return not entry.query or all(self._asks(*pair) for pair in entry.query)

    def known(self) -> frozenset[Predicate]:
        """All predicates that hold for the request."""
        return holding(self._scope["headers"], self._asked())

    def _has_header(self, name: bytes, value: bytes) -> bool:
        return any(key == name and value in (b"*", found) for key, found in self._scope["headers"])

    def _asks(self, name: str, value: str) -> bool:
        return any(key == name and value in ("*", found) for key, found in self._asked())

    def _asked(self) -> Sequence[tuple[str, str]]:
        if self._query is None:
            text = self._scope["query_string"].decode("utf-8", "replace")
            self._query = parse_qsl(text, keep_blank_values=True)
        return self._query


class Order(Generic[T]):
    """The entries for one host, in the order in which they are asked."""

    __slots__ = ("_lookups", "by_method", "entries", "others")

    def __init__(self, entries: Iterable[Entry[T]]) -> None:
        self.entries = tuple(entries)
        methods = frozenset[str]().union(*(entry.methods for entry in self.entries))
        self.by_method = {method: tuple(until_certain(self.serving(method))) for method in methods}
        self.others = tuple(until_certain(self.serving("")))
        self._lookups = {
            method: lookup(entries)
            for method, entries in (*self.by_method.items(), ("", self.others))
            if len(entries) > FEW
        }

    def first(self, method: str, facts: Facts) -> Entry[T] | None:
        """The first entry that serves a method and fits."""
        if method not in self.by_method:
            method = ""
        if (many := self._lookups.get(method)) is not None:
            return many.first(facts.known())
        entries = self.by_method[method] if method else self.others
        return next((entry for entry in entries if facts.fit(entry)), None)

    def serving(self, method: str) -> Iterator[Entry[T]]:
        """The entries that serve a method; the empty one is any that no entry names."""
        return (entry for entry in self.entries if not entry.methods or method in entry.methods)


class Place(Generic[T]):
    """All entries of one path or one shape of paths, ordered once for every host that they name."""

    __slots__ = ("_hosts", "_labels", "_otherwise")

    def __init__(self, entries: Sequence[Entry[T]]) -> None:
        by_host: dict[str, list[Entry[T]]] = {}
        for entry in entries:
            for host in entry.hosts or ("",):
                by_host.setdefault(host, []).append(entry)
        self._otherwise = ordered(by_host, [""])
        self._hosts = {host: ordered(by_host, [*covering(host), ""]) for host in by_host if host}
        # How many labels the longest wildcard has: no more of a caller's host is ever looked at.
        self._labels = max((host.count(".") for host in self._hosts if host[0] == "*"), default=0)

    def candidates(self, method: str, host: str) -> tuple[Entry[T], ...]:
        """The entries for a method and host. The last one, or none, has no predicate: it fits for certain."""
        order = self.order(host) if self._hosts else self._otherwise
        return order.by_method.get(method, order.others)

    def first(self, method: str, host: str, facts: Facts) -> Entry[T] | None:
        """The first entry for a method and host that fits."""
        order = self.order(host) if self._hosts else self._otherwise
        return order.first(method, facts)

    def order(self, host: str) -> Order[T]:
        if (found := self._hosts.get(host)) is not None:
            return found
        if self._labels:
            labels = host.rsplit(".", self._labels)
            # An empty label is none: `.example.com` is not below `example.com`.
            for index in range(1 if labels[0] else 2, len(labels)):
                if (found := self._hosts.get("*." + ".".join(labels[index:]))) is not None:
                    return found
        return self._otherwise

    def orders(self) -> Iterator[Order[T]]:
        yield from self._hosts.values()
        yield self._otherwise


def covering(host: str) -> Iterator[str]:
    """A host as routes name it, and every wildcard above it, the nearest first."""
    yield host
    labels = host.removeprefix("*.").split(".")
    for index in range(1, len(labels)):
        yield "*." + ".".join(labels[index:])


def ordered(by_host: dict[str, list[Entry[T]]], hosts: Iterable[str]) -> Order[T]:
    """Put the entries for some hosts in order; an earlier host is the closer one."""
    distance: dict[Entry[T], int] = {}
    for rank, host in enumerate(hosts):
        for entry in by_host.get(host, ()):
            distance.setdefault(entry, rank)
    return Order(sorted(distance, key=lambda entry: rank_of(entry, distance[entry])))


def rank_of(entry: Entry[T], distance: int) -> tuple[int, int, int, int, bool, str]:
    """What is compared, in this order; lower goes first. It never ends in a tie: names are unique."""
    predicates = [value not in ("*", b"*") for _, value in (*entry.headers, *entry.query)]
    return -entry.priority, distance, -len(predicates), -sum(predicates), not entry.methods, entry.name


def lookup(entries: Sequence[Entry[T]]) -> Lookup[Entry[T]]:
    made = Lookup(entries)
    for entry in entries:
        made.add(entry)
    return made


def until_certain(entries: Iterable[Entry[T]]) -> Iterator[Entry[T]]:
    """What follows an entry without predicates is never asked."""
    for entry in entries:
        yield entry
        if not entry.headers and not entry.query:
            return
