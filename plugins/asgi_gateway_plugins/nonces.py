"""Numbers that are used once: whoever sends one again replays a request."""

from collections.abc import Callable
from hashlib import sha256
from typing import Literal

from asgi_gateway.asgi import RETRY_SOON
from asgi_gateway.component import Build, Refusal
from asgi_gateway.store import Store, StoreError

OnError = Literal["closed", "local"]
NONCES_AWAY = Refusal(503, "store_away", RETRY_SOON, "It cannot be said whether this was sent before.")


class Kept:
    """Nonces in the memory of this process, by owner. None is given up before its time."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._kept: dict[str, dict[bytes, float]] = {}
        self.seconds = 0.0
        """How long: as long as any route would take one. What one route saw is good on no other either."""

    def last(self, seconds: float) -> None:
        """Keep what comes from now on for so long at least."""
        self.seconds = max(self.seconds, seconds)

    def add(self, owner: str, nonce: bytes, most: int) -> bool | None:
        now = self._monotonic()
        kept = self._kept.setdefault(owner, {})
        while kept and kept[first := next(iter(kept))] <= now:
            del kept[first]
        if nonce in kept:
            return False
        if len(kept) >= most:
            return None
        kept[nonce] = now + self.seconds
        return True


class Nonces:
    """The nonces of a component, the same on all routes: in the store if it is shared, else in memory."""

    def __init__(self, kept: Kept, most: int, store: Store, name: str, on_error: OnError) -> None:
        self._kept = kept
        self._most = most
        self._store = store if store.shared else None
        self._name = name
        self._on_error = on_error

    @classmethod
    def open(cls, build: Build, name: str, *, most: int, seconds: float, on_error: OnError) -> "Nonces":
        """`seconds`: how long a request with one could be replayed."""
        kept = build.keep("nonces", lambda: Kept(build.clock.monotonic), shared=True)
        build.on_live(lambda: kept.last(seconds))
        return cls(kept, most, build.store, name, on_error)

    async def add(self, owner: str, nonce: bytes) -> bool | None:
        """Keep it. False: it is there already. None: there is no room for it. StoreError: nobody can tell."""
        if self._store is not None:
            # Equally long, whatever a caller sends.
            digest = sha256(b"%b\0%b" % (owner.encode(), nonce)).hexdigest()
            try:
                return await self._store.add(f"nonce/{self._name}/{digest}", b"", self._kept.seconds)
            except StoreError:
                if self._on_error == "closed":
                    raise
        return self._kept.add(owner, nonce, self._most)
