"""The only place that knows how long a compiled configuration lives: until its last request is done."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from .asgi import ASGIApp
from .build import Dial
from .config import GatewayConfig
from .consumers import Consumers
from .errors import Problem
from .exchange import Exchange
from .forwarding import Trusted
from .resources import Lease
from .routing import Table

Operation = Callable[..., Coroutine[Any, Any, Any]]
"""Something that an operator can have done while requests run."""


@dataclass(frozen=True, slots=True)
class Beside:
    """Another upstream that requests of a route may reach, for people."""

    component: str
    upstream: str
    share: str
    """Which requests."""
    targets: tuple[str, ...]
    upstream_chain: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """One route as it was compiled, for people: names of components, outermost first."""

    name: str
    path: str
    methods: tuple[str, ...]
    hosts: tuple[str, ...]
    upstream: str
    targets: tuple[str, ...]
    chain: tuple[str, ...]
    upstream_chain: tuple[str, ...]
    websocket_chain: tuple[str, ...] | None = None
    beside: tuple[Beside, ...] = ()
    """Where components lead requests beside the upstream."""


@dataclass(frozen=True, slots=True)
class Serving:
    """What a route serves."""

    upstream: str
    http: ASGIApp
    websocket: ASGIApp | None
    timeout: float | None
    answers_preflight: bool


@dataclass(slots=True, eq=False)
class Live:
    """A compiled configuration. A request keeps the one that it entered."""

    config: GatewayConfig
    table: Table[Serving]
    canonical: Callable[[bytes], str]
    trusted: Trusted
    consumers: Consumers
    unmatched: ASGIApp
    plan: tuple[Plan, ...]
    warnings: tuple[Problem, ...]
    lease: Lease
    dials: Mapping[str, Dial[Any]]
    operations: Mapping[str, Operation]
    owned: frozenset[str]
    """Header fields that only components set: a caller's own are dropped on every route."""
    forwarded: frozenset[str] = frozenset()
    """Header fields that only trusted proxies may send."""
    apart: tuple[str, ...] = ()
    """Components whose state each process has for itself, since the store is not shared."""
    on_live: list[Callable[[], None]] = field(default_factory=list)
    on_end: list[Callable[[], None]] = field(default_factory=list)
    active: set[Exchange] = field(default_factory=set)
    """Requests in flight."""
    retired: bool = False
    timer: asyncio.TimerHandle | None = None

    def retire(self, age: float) -> None:
        """It is not the current one any more: it ends with its last request, which has `age` seconds left."""
        self.retired = True
        if self.active:
            self.timer = asyncio.get_running_loop().call_later(age, self.expire)
        self.left()

    def left(self) -> None:
        """A request of a retired configuration is done."""
        if not self.active:
            self.end()

    def expire(self) -> None:
        """Cut what still runs."""
        for exchange in self.active:
            exchange.cut("configuration_expired")

    def end(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        for function in self.on_end:
            function()
        self.on_end.clear()
        self.lease.release()
