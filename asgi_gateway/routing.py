"""The only place that decides which route serves a request."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from .asgi import Scope
from .errors import ConfigError, Problem
from .overlaps import conflicts, shadowed, unreadable_hosts
from .patterns import Pattern
from .precedence import Entry, Facts, Place

__all__ = ["Entry", "Pattern", "Table"]

T = TypeVar("T")


class Node(Generic[T]):
    """A segment in the tree of the paths that have variables."""

    __slots__ = ("literals", "place", "rest", "variable")

    def __init__(self) -> None:
        self.literals: dict[str, Node[T]] = {}
        self.variable: Node[T] | None = None
        self.rest: Node[T] | None = None
        self.place: Place[T] | None = None

    def grow(self, pattern: Pattern) -> "Node[T]":
        """The node where a pattern ends; made if it is not there yet."""
        node = self
        for segment in pattern.segments:
            if segment is not None:
                node = node.literals.setdefault(segment, Node())
            else:
                node.variable = node.variable or Node()
                node = node.variable
        if pattern.rest:
            node.rest = node.rest or Node()
            node = node.rest
        return node


class Table(Generic[T]):
    """All routes of a configuration: exact paths in a map, the others in a tree of segments."""

    __slots__ = ("_exact", "_places_made", "_root")

    def __init__(self, entries: Iterable[Entry[T]]) -> None:
        """ConfigError with all routes that mean the same requests, and all hosts that cannot be read."""
        entries = tuple(entries)
        if problems := (*unreadable_hosts(entries), *conflicts(entries)):
            raise ConfigError(problems)
        by_shape: dict[object, list[Entry[T]]] = {}
        for entry in entries:
            by_shape.setdefault(entry.pattern.shape, []).append(entry)
        self._exact: dict[str, Place[T]] = {}
        self._root: Node[T] = Node()
        self._places_made = [self._settle(group) for group in by_shape.values()]

    def _settle(self, entries: Sequence[Entry[T]]) -> Place[T]:
        place, pattern = Place(entries), entries[0].pattern
        if pattern.path:
            self._exact[pattern.path] = place
        else:
            self._root.grow(pattern).place = place
        return place

    def match(
        self, method: str, host: str, path: str, scope: Scope
    ) -> tuple[Entry[T], dict[str, str]] | None:
        """The route of a request, and its variables, still encoded.

        `host` is in lower case, without port; `path` is canonical; `scope` is asked for headers and query.
        """
        place = self._exact.get(path)
        if place is not None:
            candidates = place.candidates(method, host)
            # Most routes have no predicate on headers or query, and are decided here.
            if candidates and not candidates[0].headers and not candidates[0].query:
                return candidates[0], {}
        return self._search(method, host, path, scope)

    def _search(
        self, method: str, host: str, path: str, scope: Scope
    ) -> tuple[Entry[T], dict[str, str]] | None:
        segments = path.split("/")
        facts: Facts | None = None
        for place in self._places(path, segments):
            candidates = place.candidates(method, host)
            if not candidates:
                continue
            found: Entry[T] | None = candidates[0]
            if candidates[0].headers or candidates[0].query:
                facts = facts or Facts(scope)
                found = place.first(method, host, facts)
            if found is not None:
                return found, found.pattern.params(segments)
        return None

    def _places(self, path: str, segments: Sequence[str]) -> Iterator[Place[T]]:
        """Every place that a path can mean, the best first.

        From the left, literal before variable before wildcard. A tree has one way to each node, so that none
        is visited twice, whatever the path is.
        """
        if (exact := self._exact.get(path)) is not None:
            yield exact
        end = len(segments)
        stack = [(self._root, 1)]
        while stack:
            node, index = stack.pop()
            if index == end and node.place is not None:
                yield node.place
            # What is pushed last is visited first.
            if node.rest is not None:
                stack.append((node.rest, end))
            if index < end:
                segment = segments[index]
                if node.variable is not None and segment:
                    stack.append((node.variable, index + 1))
                if (child := node.literals.get(segment)) is not None:
                    stack.append((child, index + 1))

    def allowed(self, host: str, path: str, scope: Scope) -> frozenset[str]:
        """The methods of all routes that fit in everything but the method: for 405 and its Allow."""
        facts, methods = Facts(scope), set[str]()
        for place in self._places(path, path.split("/")):
            for entry in place.order(host).entries:
                # Of many that could add nothing none is looked at.
                if not entry.methods <= methods and facts.fit(entry):
                    methods |= entry.methods
        return frozenset(methods)

    def shadowed(self) -> tuple[Problem, ...]:
        """Routes that no request can reach."""
        return tuple(shadowed(self._places_made))
