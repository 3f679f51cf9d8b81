"""The only place that turns a declaration into what serves requests."""

import asyncio
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
from .store import Store
from .stored import Stored

T = TypeVar("T")

SLICE = 0.005
"""Seconds that a reload may compile before requests get their turn."""


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


async def in_slices(steps: Iterator[Live | None]) -> Live:
    """Compile, and let requests through every few milliseconds."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for step in steps:
        if step is not None:
            return step
        if loop.time() - began > SLICE:
            await asyncio.sleep(0)
            began = loop.time()
    raise AssertionError("the compiler ends with a Live")


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
        self._stored: Stored | None = None
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
        self._stored = stored = self._attempt(Stored, config, self.kernel, self.lease, self._stores)
        asked = self._attempt(self._probes)
        trusted = self._attempt(Trusted, config.trusted_proxies, config.trusted_hops)
        if stored is None:
            # No chain can be built without it.
            raise ConfigError(self._problems)
        self._attempt(stored.look_in, self.consumers)
        for name in config.upstreams:
            self._attempt(self.upstream, name, "")
            yield None
        entries, plans = [], []
        for route in config.routes:
            if route.enabled and (made := self._attempt(self._route, route)):
                entries.append(made[0])
                plans.append(made[1])
            yield None
        table = self._attempt(Table, [*entries, *(asked or ())])
        unmatched = self._attempt(self._unmatched)
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
                *stored.warnings(),
                *table.shadowed(),
                *unidentified(config),
                *unsaid(config),
                *unused(config),
            ),
            apart=stored.apart(),
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

    @property
    def stored(self) -> Stored:
        assert self._stored is not None
        return self._stored

    def up(self, name: str) -> Callable[[], bool]:
        """Whether an upstream has a target that is available. One that is no pool always is."""
        pool = self._opened[name].pool
        return always if pool is None else pool.up

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

    def _probes(self) -> list[Entry[Serving]]:
        try:
            return probes(self.config, self.kernel)
        except ValueError as error:
            raise ConfigError(Problem(str(error), "probes")) from None

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


async def refused(scope: Scope, receive: Receive, send: Send) -> None:
    """The end of the chain of requests that match no route."""
    refusal = scope[EXCHANGE].refused
    assert refusal is not None
    await refuse(scope, send, refusal)
