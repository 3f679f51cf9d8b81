"""The only place that finds, among many routes of one path, the first whose headers and query fit."""

from collections import Counter
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from operator import itemgetter
from typing import Generic, Protocol, TypeVar

Predicate = tuple[str, str | bytes, str | bytes]
"""`header` or `query`, the name, the value; `*` is any."""


class Asking(Protocol):
    """What asks for headers and for variables of the query."""

    @property
    def headers(self) -> Iterable[tuple[bytes, bytes]]: ...

    @property
    def query(self) -> Iterable[tuple[str, str]]: ...


A = TypeVar("A", bound=Asking)


def predicates(one: Asking) -> frozenset[Predicate]:
    """What it asks for."""
    return frozenset([("header", *pair) for pair in one.headers] + [("query", *pair) for pair in one.query])


def holding(headers: Iterable[tuple[bytes, bytes]], query: Iterable[tuple[str, str]]) -> frozenset[Predicate]:
    """All predicates that hold where these are given: what has a value is there."""
    known: set[Predicate] = set()
    for name, value in headers:
        known.add(("header", name, value))
        known.add(("header", name, b"*"))
    for key, text in query:
        known.add(("query", key, text))
        known.add(("query", key, "*"))
    return frozenset(known)


class Lookup(Generic[A]):
    """Entries in their order, each found by the rarest thing that it asks for: thousands may stand at one
    path, each with another value of a header, and none is compared with all.
    """

    __slots__ = ("_by_rarest", "_many", "_size")

    def __init__(self, entries: Iterable[A]) -> None:
        """All entries that may be added."""
        self._many = Counter(predicate for entry in entries for predicate in predicates(entry))
        self._by_rarest: dict[Predicate | None, list[tuple[int, A, frozenset[Predicate]]]] = {}
        self._size = 0

    def add(self, entry: A) -> None:
        asked = predicates(entry)
        rarest = min(asked, key=self._many.__getitem__, default=None)
        self._by_rarest.setdefault(rarest, []).append((self._size, entry, asked))
        self._size += 1

    def first(self, known: AbstractSet[Predicate]) -> A | None:
        """The first entry that asks for nothing else."""
        fitting = []
        for key in (None, *known):
            # Of those that are found by one thing the first that fits is enough.
            for place, entry, asked in self._by_rarest.get(key, ()):
                if asked <= known:
                    fitting.append((place, entry))
                    break
        return min(fitting, key=itemgetter(0))[1] if fitting else None
