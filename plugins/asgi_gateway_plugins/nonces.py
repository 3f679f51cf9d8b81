"""Numbers that are used once: whoever sends one again replays a request."""

from collections.abc import Callable
from typing import Protocol


class Nonces(Protocol):
    """Where nonces are kept for as long as a request with one could be replayed."""

    async def add(self, owner: str, nonce: bytes, seconds: float) -> bool | None:
        """Keep it for so long. False: it is there already. None: there is no room for it."""
        ...


class MemoryNonces:
    """In the memory of this process; so many for each owner, and none is given up before its time."""

    def __init__(self, most: int, monotonic: Callable[[], float]) -> None:
        self._most = most
        self._monotonic = monotonic
        self._kept: dict[str, dict[bytes, float]] = {}

    async def add(self, owner: str, nonce: bytes, seconds: float) -> bool | None:
        now = self._monotonic()
        kept = self._kept.setdefault(owner, {})
        # All of one owner are kept equally long, so that the first is the next to go.
        while kept and kept[first := next(iter(kept))] <= now:
            del kept[first]
        if nonce in kept:
            return False
        if len(kept) >= self._most:
            return None
        kept[nonce] = now + seconds
        return True
