"""The only place that says what a store is: keys that expire, and decisions that happen in one step."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha1
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import GatewayError

if TYPE_CHECKING:
    from .memory import MemoryStore

Arg = str | int | float | bytes
Twin = Callable[["MemoryStore", Sequence[str], Sequence[Arg]], Awaitable[Sequence[int]]]


class StoreError(GatewayError):
    """The store cannot be asked at the moment. Who asks decides what that means.

    `asked`: it may have done, or may do later, what it was asked for; only the answer did not come.
    """

    def __init__(self, what: str, *, asked: bool = True) -> None:
        super().__init__(what)
        self.asked = asked


@dataclass(frozen=True)
class Script:
    """One decision over some keys, during which nobody else touches them; it answers with whole numbers."""

    name: str
    lua: str
    """For Redis: `KEYS` and `ARGV` as there, the time out of `TIME`."""
    twin: Twin
    """The same over a MemoryStore: an async function that never suspends, which makes it one step there."""

    @cached_property
    def digest(self) -> str:
        """The name under which Redis keeps it."""
        return sha1(self.lua.encode(), usedforsecurity=False).hexdigest()


class Store(ABC):
    """State under keys, each with an expiry in seconds. Everything raises StoreError when it is away.

        class Redis(Store, schemes=("redis", "rediss")): ...

    A plugin offers stores by the hook `gateway_stores`; a file chooses one by the scheme of `store.url`.
    """

    schemes: ClassVar[tuple[str, ...]] = ()
    """The schemes of the URLs that it opens."""
    shared: ClassVar[bool] = True
    """Whether other processes see what is written into it."""

    def __init_subclass__(cls, schemes: tuple[str, ...] | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if schemes is not None:
            cls.schemes = schemes

    @classmethod
    @abstractmethod
    def open(cls, url: str, *, timeout: float, now: Callable[[], float]) -> "Store":
        """A store that connects when it is first asked; ConfigError for a URL that makes no sense.

        `timeout`: seconds that a connection may take; `now` is monotonic. No message shows a password.
        """

    @abstractmethod
    async def get(self, key: str) -> bytes | None:
        """What stands under a key."""

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """What stands under several keys, in one round trip where the store can do that."""
        return [await self.get(key) for key in keys]

    @abstractmethod
    async def set(self, key: str, value: bytes, ttl: float) -> None:
        """Write it, for so many seconds."""

    @abstractmethod
    async def add(self, key: str, value: bytes, ttl: float) -> bool:
        """Write it if nothing stands there; whether it was written."""

    @abstractmethod
    async def delete(self, key: str) -> bool:
        """Whether something stood there."""

    @abstractmethod
    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Arg]) -> Sequence[int]:
        """Take one decision, at once and in one round trip."""

    async def aclose(self) -> None:  # noqa: B027  # most need it, memory does not
        """Close its connections; it may be asked again."""

    @property
    def name(self) -> str:
        """How messages call it: no password."""
        return f"{self.schemes[0]}://" if self.schemes else type(self).__name__
