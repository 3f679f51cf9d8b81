"""The only place that finds routes which are in each other's way."""

import re
from collections.abc import Hashable, Iterable, Iterator
from itertools import product
from typing import TypeVar

from .errors import Problem
from .precedence import Entry, Place
from .predicates import Lookup, holding

T = TypeVar("T")

HOST = re.compile(r"(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]")


def unreadable_hosts(entries: Iterable[Entry[T]]) -> Iterator[Problem]:
    """Hosts that no request can have."""
    for entry in entries:
        for host in entry.hosts:
            if not HOST.fullmatch(host):
                hint = "write app.example.com or *.example.com in lower case, without a port"
                yield Problem(f"{host!r} is not a host", f"route {entry.name}: host", hint)


def conflicts(entries: Iterable[Entry[T]]) -> Iterator[Problem]:
    """Pairs of routes with one meaning: nothing but their names could decide between them."""
    claimed: dict[Hashable, Entry[T]] = {}
    pairs: dict[tuple[Entry[T], Entry[T]], None] = {}
    for entry in sorted(entries, key=lambda entry: entry.name):
        meaning = (entry.pattern.shape, entry.priority, frozenset(entry.headers), frozenset(entry.query))
        for host, method in product(entry.hosts or ("",), entry.methods or ("",)):
            other = claimed.setdefault((meaning, host, method), entry)
            if other is not entry:
                pairs[other, entry] = None
    for one, two in pairs:
        names = f"{one.name!r} ({one.pattern.text}) and {two.name!r} ({two.pattern.text})"
        yield Problem(
            f"routes {names} mean the same requests",
            f"route {two.name}",
            "give one another method, host, header or query, or a higher priority",
        )


def shadowed(places: Iterable[Place[T]]) -> Iterator[Problem]:
    """Routes that no request can reach, because others of the same path always go first."""
    blockers: dict[Entry[T], set[str]] = {}
    reached: set[Entry[T]] = set()
    for place in places:
        for order in place.orders():
            for method in (*order.by_method, ""):
                entries = list(order.serving(method))
                if len(entries) < 2:
                    reached.update(entries)
                    continue
                first = Lookup(entries)
                for entry in entries:
                    blocker = first.first(holding(entry.headers, entry.query))
                    if blocker is None:
                        first.add(entry)
                        reached.add(entry)
                    else:
                        blockers.setdefault(entry, set()).add(blocker.name)
    for entry in sorted(blockers.keys() - reached, key=lambda entry: entry.name):
        names = " or ".join(repr(name) for name in sorted(blockers[entry]))
        yield Problem(
            f"it is never reached: {names} always goes first",
            f"route {entry.name}",
            "take it away, or give it a higher priority",
        )
