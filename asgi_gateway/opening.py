"""The only place that opens an upstream: makes its targets, their transports and what watches over them."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .asgi import ASGIApp
from .build import ChainBuild
from .config import HealthConfig, PoolConfig, TargetConfig, Upstream
from .errors import ConfigError, Problem
from .local import Local
from .origin import Origin
from .proxy import Tunnel, proxy
from .transport import Transport
from .transport.connections import Http1
from .transport.tls import ClientContext
from .upstream import Pool, Target
from .upstream.health import Checker, TcpChecker

if TYPE_CHECKING:
    from .compiler import Compiler


@dataclass(frozen=True, slots=True)
class Opened:
    """What stands at the end of an upstream's chain."""

    app: ASGIApp
    targets: tuple[str, ...]
    pool: Pool | None = None


def open_upstream(name: str, options: Upstream, compiler: "Compiler") -> Opened:
    if options.endpoint is not None:
        build = ChainBuild(compiler, f"upstream {name}", f"endpoint {options.endpoint.name}", 0, "enforce")
        return Opened(options.endpoint.open(build), (options.endpoint.name,))
    declared = options.targets or (TargetConfig(asgi=options.asgi),)
    opener = Opener(options, compiler)
    try:
        weighted = [(opener.target(target), target.weight) for target in declared]
    except ConfigError as error:
        raise ConfigError(
            replace(problem, where=f"upstream {name}", what=f"{problem.where} {problem.what}".lstrip())
            for problem in error.problems
        ) from error
    if not any(weight for _, weight in weighted):
        raise ConfigError(Problem("no target has a weight above 0", f"upstream {name}"))
    kernel = compiler.kernel
    pool = Pool(name, weighted, options, kernel.dice, kernel.clock.monotonic)
    app = proxy(
        pool,
        host=options.host,
        forwarded=options.forwarded,
        tunnel=opener.tunnel(),
        max_open=options.websocket.max_open,
        deadline_header=compiler.config.deadline_header,
        clock=compiler.kernel.clock,
    )
    return Opened(app, tuple(target.name for target, _ in weighted), pool)


class Opener:
    """Opens the targets of one upstream. What is equal in address and options is the same target after a
    reload.
    """

    def __init__(self, options: Upstream, compiler: "Compiler") -> None:
        self._options = options
        self._kernel = compiler.kernel
        self._keep = compiler.lease.keep

    def target(self, declared: TargetConfig) -> Target:
        if declared.asgi:
            return self._local(declared.asgi)
        options = self._options
        origin = Origin.read(declared.url)
        timeouts = options.timeout if options.transport != "http1" else None
        key = ("target", origin, options.pool, options.tls, options.transport, timeouts)
        target = self._keep(key, lambda: self._remote(origin), None, Target.aclose)
        if (health := options.health) is not None:
            host = origin.authority if options.host in ("preserve", "target") else options.host
            self._keep(
                ("health", key, health, host),
                lambda: self._checker(target, origin, health, host),
                Checker.run,
                Checker.aclose,
            )
        return target

    def _checker(self, target: Target, origin: Origin, health: HealthConfig, host: str) -> Checker:
        """Over a connection of its own: a busy target is not an ill one."""
        alone = {"max_connections": 1, "max_waiting": 0, "keep_alive": 2 * health.interval}
        pool = self._options.pool.model_copy(update=alone)
        kernel = self._kernel
        given = (health, host, kernel.ticker, kernel.clock, kernel.dice)
        if health.kind == "tcp":
            return TcpChecker(target, self._http1(origin, pool), *given)
        return Checker(target, self._transport(origin, pool), *given)

    def _local(self, path: str) -> Target:
        return self._keep(("local target", path), lambda: self._made(f"asgi:{path}", local=self._app(path)))

    def _made(self, name: str, **parts: Any) -> Target:
        return Target(name, monotonic=self._kernel.clock.monotonic, **parts)

    def _app(self, path: str) -> Local:
        return self._keep(("local", path), lambda: Local(path, self._kernel.clock), Local.run)

    def _remote(self, origin: Origin) -> Target:
        transport = self._transport(origin, self._options.pool)
        return self._made(str(origin), origin=origin, transport=transport)

    def _transport(self, origin: Origin, pool: PoolConfig) -> Transport:
        options = self._options
        if options.transport != "http1":
            from .transport.httpx import HttpxTransport

            return HttpxTransport.make(options.transport, origin, options, self._kernel.clock)
        return self._http1(origin, pool)

    def _http1(self, origin: Origin, pool: PoolConfig) -> Http1:
        options = self._options
        return Http1(
            origin,
            tls=self._context() if origin.scheme == "https" else None,
            server_name=options.tls.server_name,
            max_connections=pool.max_connections,
            max_waiting=pool.max_waiting,
            wait=pool.wait,
            keep_alive=pool.keep_alive,
            max_age=pool.max_age,
            max_requests=pool.max_requests,
            clock=self._kernel.clock,
        )

    def _context(self) -> ClientContext:
        return self._keep(("tls", self._options.tls), self._checked)

    def _checked(self) -> ClientContext:
        context = ClientContext(self._options.tls)
        if problems := context.check():
            raise ConfigError(problems)
        return context

    def tunnel(self) -> Tunnel:
        from .websocket import tunnel

        return tunnel(self._options, self._kernel.clock)
