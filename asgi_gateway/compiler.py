"""The only place that turns a declaration into what serves requests."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from .asgi import ASGIApp, Receive, Scope, Send
from .boundary import boundary
from .build import Dial
from .config import GatewayConfig, Route, Upstream, Use
from .consumers import Consumer, Consumers
from .dispatch import dispatch
from .errors import ConfigError, Problem
from .exchange import EXCHANGE
from .folding import Folding, by_kind, in_order, names
from .forwarding import Trusted
from .kernel import Kernel
from .live import Beside, Live, Operation, Plan, Serving
from .opening import Opened, open_upstream
from .paths import canonical
from .plugins import suggestion
from .probes import probes
from .references import check_references, unidentified, unsaid, unused
from .refusing import refuse
from .resources import Lease
from .routing import Entry, Pattern, Table
from .stage import Stage
from .store import Store, StoreRecords, open_store

T = TypeVar("T")


def compile_config(
    config: GatewayConfig,
    kernel: Kernel,
    stores: Mapping[str, type[Store]],
    consumers: Sequence[Consumer] = (),
) -> Iterator[Live | None]:
    """Compile step by step: yields None between the steps, so that a server can serve in between, and the
    Live at last. `consumers` are there beside those of the file.

    Raises ConfigError with all problems; then nothing is held that was not held before.
    """
    lease = kernel.resources.lease()
    done = False
    try:
        for step in Compiler(config, kernel, lease, stores, consumers).run():
            done = step is not None
            yield step
    finally:
        # Also when nobody asks for the next step any more, as in a reload that is cancelled.
        if not done:
            lease.release()


class Compiler:
    """Holds what is known while one configuration is compiled."""

    def __init__(
        self,
        config: GatewayConfig,
        kernel: Kernel,
        lease: Lease,
        stores: Mapping[str, type[Store]],
        consumers: Sequence[Consumer] = (),
    ) -> None:
        self.config = config
        self.kernel = kernel
        self.lease = lease
        self.consumers = Consumers((*config.consumers, *consumers))
        self.dials: dict[str, Dial[object]] = {}
        self.operations: dict[str, Operation] = {}
        self.on_live: list[Callable[[], None]] = []
        self._stores = stores
        self._store: Store | None = None
        self._counting: set[str] = set()
        """Components that keep their state in the store."""
        self._opened: dict[str, Opened] = {}
        self._apps: dict[str, ASGIApp] = {}
        self._opening: list[str] = []
        self._refused: set[str] = set()
        """Upstreams that could not be built: what is wrong with them is said once."""
        self._problems: list[Problem] = []
        self._folding = Folding(self)

    def run(self) -> Iterator[Live | None]:
        config = self.config
        if problems := check_references(config, self.consumers):
            raise ConfigError(problems)
        self._store = self._attempt(self._open_store)
        if self._store is not None:
            self._attempt(self._look_in, self._store)
        for name in config.upstreams if self._store is not None else ():
            self._attempt(self.upstream, name, "")
            yield None
        entries, plans = [], []
        for route in config.routes if self._store is not None else ():
            if route.enabled and (made := self._attempt(self._route, route)):
                entries.append(made[0])
                plans.append(made[1])
            yield None
        table = self._attempt(self._table, entries)
        unmatched = self._attempt(self._unmatched) if self._store is not None else None
        trusted = self._attempt(Trusted, config.trusted_proxies, config.trusted_hops)
        if self._problems or table is None or unmatched is None or trusted is None:
            raise ConfigError(self._problems)
        pools = [opened.pool for opened in self._opened.values() if opened.pool is not None]
        # Also what is switched off: an upstream that believes in its fields still does.
        declared = [use.component for _, chain in config.chains() for use in chain]
        yield Live(
            config=config,
            table=table,
            canonical=canonical(config.paths),
            trusted=trusted,
            consumers=self.consumers,
            unmatched=unmatched,
            plan=tuple(plans),
            warnings=(
                *self._folding.warnings,
                *self._apart(),
                *table.shadowed(),
                *unidentified(config),
                *unsaid(config),
                *unused(config),
            ),
            apart=self._counts_apart(),
            lease=self.lease,
            dials=self.dials,
            operations=self.operations,
            owned=frozenset(name for component in declared for name in component.owns()),
            forwarded=frozenset(name for component in declared for name in component.forwarded()),
            on_live=[*(pool.open for pool in pools), *self.on_live],
            on_end=[pool.close for pool in pools],
        )

    def _attempt(self, function: Callable[..., T], *args: object) -> T | None:
        """Go on after a ConfigError, so that all problems are found at once."""
        try:
            return function(*args)
        except ConfigError as error:
            self._problems += error.problems
            return None

    def up(self, name: str) -> Callable[[], bool]:
        """Whether an upstream has a target that is available. One that is no pool always is."""
        pool = self._opened[name].pool
        return always if pool is None else pool.up

    # The store

    def _open_store(self) -> Store:
        """The store of the file; a reload that says the same has the same."""
        options, now = self.config.store, self.kernel.clock.monotonic

        def make() -> Store:
            url = options.url.get_secret_value()
            return open_store(url, self._stores, timeout=options.timeout, prefix=options.prefix, now=now)

        return self.lease.keep(("store", options), make, None, close_store)

    def _look_in(self, store: Store) -> None:
        """Let callers be found in the store whom the file does not know."""
        options = self.config.store.consumers
        if options is None:
            return
        if not store.shared:
            what = "there are no consumers in a store that only this process writes"
            raise ConfigError(Problem(what, "store.consumers", "as in store.url: redis://127.0.0.1:6379/0"))
        now, bounds = self.kernel.clock.monotonic, dict(options)
        self.consumers.records = self.lease.keep(
            ("records", self.config.store),
            lambda: StoreRecords(store, now, **bounds),
            None,
            StoreRecords.aclose,
        )

    def store_for(self, component: str) -> Store:
        """The store, for a component that keeps state in it."""
        assert self._store is not None
        self._counting.add(component)
        return self._store

    @property
    def shares(self) -> bool:
        assert self._store is not None
        return self._store.shared

    def _counts_apart(self) -> tuple[str, ...]:
        """Components whose state each process has for itself."""
        alone = self._store is not None and not self._store.shared
        return tuple(sorted(self._counting)) if alone else ()

    def _apart(self) -> Iterator[Problem]:
        if (many := self.config.server.workers) > 1 and (names := self._counts_apart()):
            yield counted_apart(names, many)

    # Upstreams

    def upstream(self, name: str, owner: str) -> ASGIApp:
        """The app of an upstream, compiled when it is first asked for."""
        if name in self._apps:
            return self._apps[name]
        if name in self._refused:
            raise ConfigError(())
        where = owner or f"upstream {name}"
        if name in self._opening:
            circle = " -> ".join([*self._opening[self._opening.index(name) :], name])
            raise ConfigError(Problem(f"upstreams call each other in a circle: {circle}", where))
        if name not in self.config.upstreams:
            hint = suggestion(name, self.config.upstreams)
            raise ConfigError(Problem(f"no upstream is called {name!r}", where, hint))
        self._opening.append(name)
        try:
            self._apps[name] = self._upstream(name, self.config.upstreams[name])
        except ConfigError:
            self._refused.add(name)
            raise
        finally:
            self._opening.pop()
        return self._apps[name]

    def _upstream(self, name: str, options: Upstream) -> ASGIApp:
        owner = f"upstream {name}"
        opened = self._opened[name] = open_upstream(name, options, self)
        app = self._folding.fold(options.components, opened.app, owner)
        if any(len(use.component.serves) < 2 for use in options.components):
            app = by_kind(app, self._folding.fold(options.components, opened.app, owner, "websocket"))
        return boundary(app, name, options.timeout, self.kernel.ticker, self.kernel.clock)

    # Routes

    def _route(self, route: Route) -> tuple[Entry[Serving], Plan]:
        owner = f"route {route.name}"
        pattern = self._pattern(route, owner)
        uses = self._uses(route)
        end = dispatch(route, pattern, self._apps)
        self.upstream(route.upstream, owner)
        serving = Serving(
            upstream=route.upstream,
            http=self._folding.fold(uses, end, owner),
            websocket=self._folding.fold(uses, end, owner, "websocket") if route.websocket else None,
            timeout=route.timeout,
            answers_preflight=any(use.component.answers_preflight for use in uses if use.enabled),
        )
        entry = Entry(
            name=route.name,
            pattern=pattern,
            methods=frozenset(route.methods),
            hosts=tuple(host.lower() for host in route.host),
            headers=tuple((name.lower().encode(), value.encode()) for name, value in route.headers),
            query=route.query,
            priority=route.priority,
            payload=serving,
        )
        return entry, self._plan(route, uses)

    def _table(self, entries: Sequence[Entry[Serving]]) -> Table[Serving]:
        try:
            asked = probes(self.config, self.kernel)
        except ValueError as error:
            raise ConfigError(Problem(str(error), "probes")) from None
        return Table([*entries, *asked])

    def _pattern(self, route: Route, owner: str) -> Pattern:
        try:
            return Pattern(route.path, self.config.paths)
        except ValueError as error:
            raise ConfigError(Problem(str(error), f"{owner}: path")) from None

    def _uses(self, route: Route) -> list[Use]:
        """The components of a route: the global ones, those of its policies, its own."""
        shared = [use for name in route.policies for use in self.config.policies[name]]
        return [*self.config.components, *shared, *route.components]

    def _unmatched(self) -> ASGIApp:
        """The chain of requests that match no route: they are observed and guarded, and told so."""
        early = [use for use in self.config.components if use.component.stage <= Stage.GUARD]
        return self._folding.fold(early, refused, "requests without a route")

    def _plan(self, route: Route, uses: Sequence[Use]) -> Plan:
        upstream = self.config.upstreams[route.upstream]
        return Plan(
            name=route.name,
            path=route.path,
            methods=route.methods,
            hosts=route.host,
            upstream=route.upstream,
            targets=self._opened[route.upstream].targets,
            chain=names(uses, "http"),
            upstream_chain=names(upstream.components, "http"),
            websocket_chain=names(uses, "websocket") if route.websocket else None,
            beside=tuple(self._beside(uses)),
        )

    def _beside(self, uses: Sequence[Use]) -> Iterator[Beside]:
        for use in in_order(uses):
            for name, share in use.component.leads_to():
                chain = names(self.config.upstreams[name].components, "http")
                yield Beside(use.component.name, name, share, self._opened[name].targets, chain)


def always() -> bool:
    return True


async def close_store(store: Store) -> None:
    await store.aclose()


def counted_apart(components: Sequence[str], workers: int) -> Problem:
    """What several workers without a shared store mean for components that keep state in it."""
    return Problem(
        f"each of the {workers} workers counts for itself in {', '.join(components)}: limits admit up to "
        f"{workers} times what is written, and what one worker remembers no other knows",
        "store",
        "share one, as in store: redis://127.0.0.1:6379/0",
    )


async def refused(scope: Scope, receive: Receive, send: Send) -> None:
    """The end of the chain of requests that match no route."""
    refusal = scope[EXCHANGE].refused
    assert refusal is not None
    await refuse(scope, send, refusal)
