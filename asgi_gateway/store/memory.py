"""The only place that keeps the state of a store in the memory of one process."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar
from urllib.parse import parse_qsl, urlsplit

from ..errors import ConfigError, Problem
from ..recent import Recent
from .base import Arg, Script, Store

T = TypeVar("T")

MOST = 200_000


@dataclass(slots=True)
class Entry:
    value: Any
    until: float
    weight: int = 1


class MemoryStore(Store, schemes=("memory",)):
    """A store within one process: bounded, and gone with it. The keys unseen for longest are forgotten."""

    shared: ClassVar[bool] = False

    def __init__(self, now: Callable[[], float], most: int = MOST) -> None:
        self.now = now
        self._entries: Recent[Entry] = Recent(most)
        self._places: dict[Hashable, Any] = {}

    @classmethod
    def open(cls, url: str, *, timeout: float, now: Callable[[], float]) -> "MemoryStore":
        """`memory://`, or `memory://?max_keys=1000`."""
        options = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
        most = options.pop("max_keys", str(MOST))
        if options or not most.isascii() or not most.isdecimal() or not int(most):
            raise ConfigError(
                Problem("the memory store has one option", "store", "memory://?max_keys=200000")
            )
        return cls(now, int(most))

    def __len__(self) -> int:
        return self._entries.size

    # What twins of scripts work with. None of it suspends.

    def read(self, key: str) -> Any:
        """What stands under a key, or None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.until <= self.now():
            self._entries.forget(key)
            return None
        return entry.value

    def write(self, key: str, value: Any, ttl: float) -> None:
        now = self.now()
        self._entries.forget(key)
        self._entries.add(key, Entry(value, now + ttl))
        self._entries.make_room(now)

    def place(self, key: Hashable, make: Callable[[], T]) -> T:
        """An object that a twin has for itself, made once; it bounds itself. As many as there are rules."""
        if key not in self._places:
            self._places[key] = make()
        place: T = self._places[key]
        return place

    # What every store does

    async def get(self, key: str) -> bytes | None:
        value: bytes | None = self.read(key)
        return value

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        self.write(key, value, ttl)

    async def add(self, key: str, value: bytes, ttl: float) -> bool:
        if self.read(key) is not None:
            return False
        self.write(key, value, ttl)
        return True

    async def delete(self, key: str) -> bool:
        there = self.read(key) is not None
        self._entries.forget(key)
        return there

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Arg]) -> Sequence[int]:
        return await script.twin(self, keys, args)
