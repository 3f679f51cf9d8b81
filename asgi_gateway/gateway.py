"""The ASGI application: takes each request in, keeps the current configuration, brings in the next one."""

import asyncio
import logging
import os
import random
from asyncio import current_task, get_running_loop
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from . import loading
from .asgi import RETRY_SOON, Headers, Receive, Scope, Send
from .clock import Clock
from .compiler import compile_config, in_slices
from .component import Dial
from .config import GatewayConfig
from .door import Door
from .errors import Aborted, CallerLeft, ConfigError, Problem
from .exchange import Cut, Exchange
from .kernel import Kernel
from .lifespan import follow
from .live import Live, Plan
from .plugins import Plugins, suggestion
from .refusing import tell
from .turn import FEW, Turn

FOREVER = float("inf")

logger = logging.getLogger("asgi_gateway")

CUTS: dict[Cut, tuple[int, str, Headers]] = {
    "configuration_expired": (503, "The configuration that it began with is gone.", RETRY_SOON),
    "shutdown": (503, "This gateway shuts down.", RETRY_SOON),
    "total_timeout": (504, "The time for this request is over.", ()),
}
"""What a caller is told whose request the gateway itself ended."""


class Gateway:
    """A gateway, mountable into any ASGI application or served by itself.

    gateway = Gateway.load("gateway.yaml")
    app = FastAPI(lifespan=gateway.lifespan)
    app.mount("/api", gateway)
    """

    def __init__(
        self,
        config: GatewayConfig,
        *,
        plugins: Plugins | None = None,
        clock: Clock | None = None,
        dice: random.Random | None = None,
    ) -> None:
        """Build it completely, or raise ConfigError with everything that is wrong."""
        if plugins is None:
            plugins = Plugins.installed(disable=config.plugins.disable, allow=config.plugins.allow)
        self._plugins = plugins
        self._kernel = Kernel(clock, dice)
        self._monotonic = self._kernel.clock.monotonic
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn: Turn
        self._reloading = asyncio.Lock()
        self._extra: tuple[object, ...] = ()
        self._lives: list[Live] = []
        """The configurations that still serve requests, the current one last."""
        self.source: Path | None = None
        """The file it was loaded from."""
        steps = compile_config(config, self._kernel, plugins.stores, plugins.consumers())
        live, *_ = [step for step in steps if step is not None]
        self._live = live
        self._begin_with(live)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        plugins: Iterable[object] = (),
        content: bytes | None = None,
        clock: Clock | None = None,
        dice: random.Random | None = None,
    ) -> "Gateway":
        """A gateway out of a file; `plugins` are objects with hooks, beside the installed ones.

        `content` is what the file said, where it was read before.
        """
        extra = tuple(plugins)
        config, found = loading.load(path, extra, content=content)
        try:
            gateway = cls(config, plugins=found, clock=clock, dice=dice)
        except ConfigError as error:
            raise loading.locate(error, path, content) from error
        gateway.source, gateway._extra = Path(path), extra
        return gateway

    @classmethod
    def parse(
        cls,
        document: Mapping[str, Any],
        *,
        plugins: Iterable[object] = (),
        clock: Clock | None = None,
        dice: random.Random | None = None,
    ) -> "Gateway":
        """A gateway out of what a file would say."""
        config, found = loading.parse(document, tuple(plugins))
        try:
            return cls(config, plugins=found, clock=clock, dice=dice)
        except ConfigError as error:
            raise loading.hide(error, document) from error

    # What it is

    @property
    def config(self) -> GatewayConfig:
        return self._live.config

    @property
    def plan(self) -> tuple[Plan, ...]:
        """The routes as they were compiled."""
        return self._live.plan

    @property
    def warnings(self) -> tuple[Problem, ...]:
        return self._live.warnings

    @property
    def apart(self) -> tuple[str, ...]:
        """Components whose state each process has for itself."""
        return self._live.apart

    @property
    def plugins(self) -> Plugins:
        return self._plugins

    @property
    def ready(self) -> bool:
        """What the readiness probe answers."""
        return self._kernel.ready

    @ready.setter
    def ready(self, ready: bool) -> None:
        self._kernel.ready = ready

    def dial(self, name: str) -> Dial:
        """A live setting by its name, as in `route/orders/canary/percent`; KeyError for an unknown one."""
        dials = self._live.dials
        if name not in dials:
            raise KeyError(f"no dial is called {name!r} {suggestion(name, dials)}".rstrip())
        return dials[name]

    @property
    def operations(self) -> tuple[str, ...]:
        """What components can do on demand, as in `route/orders/cache/purge`."""
        return tuple(sorted(self._live.operations))

    async def operate(self, name: str, **arguments: Any) -> Any:
        """Have it done, and return what came of it; KeyError for an unknown one."""
        operations = self._live.operations
        if name not in operations:
            raise KeyError(f"no operation is called {name!r} {suggestion(name, operations)}".rstrip())
        return await operations[name](**arguments)

    def __repr__(self) -> str:
        routes, upstreams = len(self.plan), len(self.config.upstreams)
        return f"<Gateway routes={routes} upstreams={upstreams} active={len(self._live.active)}>"

    # A request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await follow(self.lifespan(), receive, send)
            return
        # Once per request: Python 3.11 asks the system for its process id whenever the loop is asked for.
        loop = get_running_loop()
        if loop is not self._loop:
            self._enter_loop(loop)
        live = self._live
        exchange = Exchange(scope, send, self._monotonic(), current_task(loop))
        extensions = scope.get("extensions")
        exchange.foreign = scope["type"] == "http" and (not extensions or "asgi_gateway" not in extensions)
        live.active.add(exchange)
        if len(live.active) > FEW:
            self._turn.crowded = True
        try:
            app, inner = self._door.enter(scope, exchange)
            if exchange.deadline < FOREVER:
                self._kernel.ticker.watch(exchange, loop)
            await app(inner, receive, exchange.send)
        except asyncio.CancelledError:
            if exchange.cut_for is not None:
                await self._cut(scope, exchange, exchange.cut_for)
                return
            exchange.outcome = "caller_left"
            # Our own watcher cancelled it: the server, which does not, waits for an ordinary end.
            if not exchange.left or exchange.task is None or exchange.task.uncancel():
                raise
        except CallerLeft:
            exchange.outcome = "caller_left"
        except Aborted:
            exchange.outcome = "aborted"
            raise
        except Exception as error:
            await self._fail(scope, exchange, error)
        finally:
            if exchange.deadline < FOREVER:
                self._kernel.ticker.forget(exchange)
            exchange.end(self._monotonic())
            live.active.discard(exchange)
            if live.retired:
                live.left()

    async def _fail(self, scope: Scope, exchange: Exchange, error: Exception) -> None:
        """Something in a chain raised: a component that fails denies."""
        exchange.outcome, exchange.cause = "failed", type(error).__name__
        logger.error("request %s on route %r failed", exchange.id, exchange.route, exc_info=error)
        if exchange.status:
            raise Aborted(f"{type(error).__name__} after the answer had begun") from error
        await tell(scope, exchange.send, exchange, 500, "internal_error", "The gateway failed.")

    async def _cut(self, scope: Scope, exchange: Exchange, why: Cut) -> None:
        """The gateway itself ended it."""
        exchange.outcome, exchange.cause = "aborted", why
        if exchange.task is not None:
            exchange.task.uncancel()
        if exchange.status and scope["type"] == "websocket":
            code = 1001 if why == "shutdown" else 1012
            await exchange.send({"type": "websocket.close", "code": code, "reason": "try again"})
            return
        if exchange.status:
            raise Aborted(why)
        status, detail, headers = CUTS[why]
        await tell(scope, exchange.send, exchange, status, why, detail, headers)

    def cut(self) -> None:
        """End all requests in flight: the server cannot wait any longer."""
        for live in self._lives:
            for exchange in live.active:
                exchange.cut("shutdown")

    # Its life

    def _enter_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Also without a lifespan everything runs from the first request on."""
        self._loop, self._turn = loop, Turn.of(loop)
        self._kernel.resources.start()

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Run what runs beside the requests. Fits `FastAPI(lifespan=gateway.lifespan)`."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._stop)
            self._enter_loop(get_running_loop())
            for beside in self._plugins.lifespans(self):
                await stack.enter_async_context(beside)
            yield

    async def _stop(self) -> None:
        await self._kernel.stop()
        self._loop = None

    # The next configuration

    async def reload(self, config: GatewayConfig | None = None, *, content: bytes | None = None) -> None:
        """Bring in a new configuration, or what the file says now. ConfigError: nothing has changed.

        `content` is what the file said, where it was read before.
        """
        async with self._reloading:
            if config is not None:
                wanted, plugins = config, self._plugins
            elif self.source is not None:
                wanted, plugins = await asyncio.to_thread(
                    loading.load, self.source, self._extra, content=content
                )
            else:
                raise ConfigError("the gateway was not loaded from a file: pass a configuration")
            try:
                consumers = await asyncio.to_thread(plugins.consumers)
                live = await in_slices(compile_config(wanted, self._kernel, plugins.stores, consumers))
            except ConfigError as error:
                raise (loading.locate(error, self.source, content) if self.source else error) from error
            before, self._live, self._plugins = self._live, live, plugins
            self._begin_with(live)
            self._kernel.resources.start()
            before.retire(live.config.server.limits.retired)
        plugins.reloaded(self)

    def _begin_with(self, live: Live) -> None:
        self._lives = [each for each in self._lives if each.active]
        self._lives.append(live)
        self._door = Door(live, live.config.server.limits, live.owned, live.forwarded)
        self._kernel.max_spawned = live.config.server.limits.spawned
        for function in live.on_live:
            function()
