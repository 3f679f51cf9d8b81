"""The only place that knows the state of one target: what carries requests to it, how busy and how well it
is.
"""

from collections.abc import Callable

from ..local import Local
from ..origin import Origin
from ..transport import Transport


class Target:
    """One place where an upstream is served. It outlives reloads, so that its connections and its health do
    too.
    """

    def __init__(
        self,
        name: str,
        *,
        origin: Origin | None = None,
        transport: Transport | None = None,
        local: Local | None = None,
    ) -> None:
        self.name = name
        self.origin = origin
        self.authority = origin.authority.encode() if origin else b""
        self.transport = transport
        self.local = local
        self.active = 0
        """Calls in flight."""
        self.tunnels = 0
        """WebSockets among them."""
        self.failures = 0
        """Failed calls in a row."""
        self.told = False
        """Whether the log says that it fails."""
        self.healthy = True
        """What the active checks say."""
        self.ejected = False
        """What the passive ones say."""
        self._watching: set[Callable[[], None]] = set()

    @property
    def available(self) -> bool:
        return self.healthy and not self.ejected

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever `available` may have changed."""
        self._watching.add(changed)

    def forget(self, changed: Callable[[], None]) -> None:
        self._watching.discard(changed)

    def mark(self, *, healthy: bool | None = None, ejected: bool | None = None) -> None:
        before = self.available
        if healthy is not None:
            self.healthy = healthy
        if ejected is not None:
            self.ejected = ejected
        if self.available != before:
            for changed in tuple(self._watching):
                changed()

    async def aclose(self) -> None:
        if self.transport is not None:
            await self.transport.aclose()

    def __repr__(self) -> str:
        state = "ejected" if self.ejected else "up" if self.healthy else "down"
        return f"<Target {self.name} {state} active={self.active}>"
