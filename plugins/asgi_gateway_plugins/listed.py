"""Lists of networks that lie in the store, where another system writes them while gateways run."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from asgi_gateway.errors import ConfigError
from asgi_gateway.store import Store, StoreError

from .networks import LARGEST

T = TypeVar("T")

logger = logging.getLogger("asgi_gateway")


class Listed(Generic[T]):
    """Something that is made out of lists in the store, anew when they change.

    While the store is away, or a list cannot be read, what was made last holds.
    """

    def __init__(
        self, store: Store, keys: Sequence[str], seconds: float, make: Callable[[tuple[bytes, ...]], T]
    ) -> None:
        """`make` gets the lists in the order of their keys, empty where there is none. It may raise
        ConfigError.
        """
        self._store = store
        self._keys = keys
        self._seconds = seconds
        self._make = make
        self._said = tuple(b"" for _ in keys)
        self._told = ""
        self.made = make(self._said)

    async def run(self) -> None:
        while True:
            try:
                await self.follow()
                self._told = ""
            except (StoreError, ConfigError) as error:
                self._tell(f"lists {', '.join(self._keys)} in the store cannot be used: {error}")
            await asyncio.sleep(self._seconds)

    async def follow(self) -> None:
        """Read the lists. Raises StoreError, ConfigError."""
        said = tuple(found or b"" for found in await self._store.get_many(self._keys))
        if said == self._said:
            return
        if any(len(content) > LARGEST for content in said):
            raise ConfigError(f"one is larger than {LARGEST} bytes")
        # Beside the loop: a list of a hundred thousand networks takes a while.
        self.made = await asyncio.to_thread(self._make, said)
        self._said = said

    def _tell(self, what: str) -> None:
        """Say it once."""
        if what != self._told:
            logger.error("%s", what)
        self._told = what
