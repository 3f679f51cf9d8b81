"""The only place that opens an upstream: makes its targets, their transports and what watches over them."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .asgi import ASGIApp
from .build import ChainBuild
from .config import TargetConfig, Upstream
from .errors import ConfigError, Problem
from .local import Local
from .origin import Origin
from .proxy import Tunnel, proxy
from .transport import Transport
from .transport.connections import Http1
from .transport.tls import ClientContext
from .upstream import Pool, Target
from .upstream.health import Checker

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
        raise ConfigError(replace(problem, where=f"upstream {name}") for problem in error.problems) from error
    if not any(weight for _, weight in weighted):
        raise ConfigError(Problem("no target has a weight above 0", f"upstream {name}"))
    pool = Pool(name, weighted, options.balancer, options.ejection, compiler.kernel.dice)
    app = proxy(pool, host=options.host, forwarded=options.forwarded, tunnel=opener.tunnel())
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
        key = ("target", origin, options.pool, options.timeout, options.tls, options.transport)
        target = self._keep(key, lambda: self._remote(origin), None, Target.aclose)
        if (health := options.health) is not None:
            host = origin.authority if options.host in ("preserve", "target") else options.host
            kernel = self._kernel
            self._keep(
                ("health", key, health, host),
                lambda: Checker(target, health, host, kernel.ticker, kernel.clock, kernel.dice),
                Checker.run,
                None,
            )
        return target

    def _local(self, path: str) -> Target:
        return self._keep(("local target", path), lambda: Target(f"asgi:{path}", local=self._app(path)))

    def _app(self, path: str) -> Local:
        return self._keep(("local", path), lambda: Local(path), Local.run)

    def _remote(self, origin: Origin) -> Target:
        return Target(str(origin), origin=origin, transport=self._transport(origin))

    def _transport(self, origin: Origin) -> Transport:
        options = self._options
        if options.transport != "http1":
            from .transport.httpx import HttpxTransport

            return HttpxTransport.make(options.transport, origin, options)
        return Http1(
            origin,
            tls=self._context() if origin.scheme == "https" else None,
            server_name=options.tls.server_name,
            max_connections=options.pool.max_connections,
            max_waiting=options.pool.max_waiting,
            wait=options.pool.wait,
            keep_alive=options.pool.keep_alive,
            connect=options.timeout.connect,
            idle=options.timeout.idle,
            clock=self._kernel.clock,
        )

    def _context(self) -> ClientContext:
        return self._keep(("tls", self._options.tls), lambda: ClientContext(self._options.tls))

    def tunnel(self) -> Tunnel:
        from .websocket import tunnel

        return tunnel(self._options, self._kernel.clock)
