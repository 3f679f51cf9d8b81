"""The only place that opens the store of a configuration, and knows what it means not to share one."""

from collections.abc import Iterator, Mapping, Sequence

from .config import GatewayConfig
from .consumers import Consumers
from .errors import ConfigError, Problem
from .kernel import Kernel
from .resources import Lease
from .store import Store, StoreRecords, open_store


class Stored:
    """The store of one configuration, and the components that keep their state in it."""

    def __init__(
        self, config: GatewayConfig, kernel: Kernel, lease: Lease, stores: Mapping[str, type[Store]]
    ) -> None:
        """A reload that says the same has the same. `stores`: the kinds, by scheme. ConfigError."""
        self._config = config
        self._now = kernel.clock.monotonic
        self._lease = lease
        self._used: set[str] = set()
        options = config.store

        def make() -> Store:
            url = options.url.get_secret_value()
            return open_store(
                url, stores, timeout=options.timeout, prefix=options.prefix, now=kernel.clock.monotonic
            )

        self._store = lease.keep(("store", options), make, None, close)

    @property
    def shared(self) -> bool:
        return self._store.shared

    def store_for(self, component: str) -> Store:
        """The store, for a component that keeps state in it."""
        self._used.add(component)
        return self._store

    def look_in(self, consumers: Consumers) -> None:
        """Let callers be found in the store whom the file does not know."""
        options = self._config.store.consumers
        if options is None:
            return
        if not self.shared:
            what = "there are no consumers in a store that only this process writes"
            raise ConfigError(Problem(what, "store.consumers", "as in store.url: redis://127.0.0.1:6379/0"))
        store, now, bounds = self._store, self._now, dict(options)
        consumers.records = self._lease.keep(
            ("records", self._config.store),
            lambda: StoreRecords(store, now, **bounds),
            None,
            StoreRecords.aclose,
        )

    def apart(self) -> tuple[str, ...]:
        """Components whose state each process has for itself."""
        return () if self.shared else tuple(sorted(self._used))

    def warnings(self) -> Iterator[Problem]:
        if (many := self._config.server.workers) > 1 and (names := self.apart()):
            yield counted_apart(names, many)


async def close(store: Store) -> None:
    await store.aclose()


def counted_apart(components: Sequence[str], workers: int) -> Problem:
    """What several workers without a shared store mean for components that keep state in it."""
    return Problem(
        f"each of the {workers} workers counts for itself in {', '.join(components)}: limits admit up to "
        f"{workers} times what is written, and what one worker remembers no other knows",
        "store",
        "share one, as in store: redis://127.0.0.1:6379/0",
    )
