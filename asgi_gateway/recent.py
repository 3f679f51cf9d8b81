"""The only place that bounds what is remembered by key: the least recently used are forgotten."""

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar


class Entry(Protocol):
    until: float
    """When it can be forgotten."""

    @property
    def weight(self) -> int:
        """How much of the bound it takes up."""
        ...


E = TypeVar("E", bound=Entry)


class Recent(Generic[E]):
    """Entries by key, within a bound. The ones that were asked for least recently are forgotten."""

    def __init__(self, most: int) -> None:
        self._entries: OrderedDict[str, E] = OrderedDict()
        self._most = most
        self.size = 0

    def get(self, key: str) -> E | None:
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def add(self, key: str, entry: E) -> E:
        self._entries[key] = entry
        self.size += entry.weight
        return entry

    def forget(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size -= entry.weight

    def make_room(self, now: float) -> None:
        """To be called after each growth by one. Two steps at most: expired entries go, and nobody waits."""
        for _ in range(2):
            if not self._entries:
                return
            oldest = next(iter(self._entries))
            if self.size <= self._most and self._entries[oldest].until > now:
                return
            self.forget(oldest)

    def clear(self) -> None:
        self._entries.clear()
        self.size = 0
