"""The only place that names the hooks. All of them run while a gateway is built or starts, none of them per
request.
"""

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from .component import Component
    from .consumers import Consumer
    from .endpoint import Endpoint
    from .gateway import Gateway
    from .store import Store
    from .strategy import Strategy

hookspec = pluggy.HookspecMarker("asgi_gateway")
hookimpl = pluggy.HookimplMarker("asgi_gateway")


@hookspec
def gateway_components() -> "Iterable[type[Component]]":  # type: ignore[empty-body]
    """Offer component types. Routes and upstreams select them by name."""


@hookspec
def gateway_endpoints() -> "Iterable[type[Endpoint]]":  # type: ignore[empty-body]
    """Offer kinds of upstream."""


@hookspec
def gateway_stores() -> "Iterable[type[Store]]":  # type: ignore[empty-body]
    """Offer kinds of store. A file selects one by the scheme of its URL."""


@hookspec
def gateway_canary_strategies() -> "Iterable[type[Strategy]]":  # type: ignore[empty-body]
    """Offer ways to choose who is a canary. A `canary` selects one by name."""


@hookspec
def gateway_consumers() -> "Iterable[Consumer]":  # type: ignore[empty-body]
    """Offer callers with credentials, beside those of the file. Asked at start and at every reload."""


@hookspec
def gateway_lifespan(gateway: "Gateway") -> AbstractAsyncContextManager[None]:  # type: ignore[empty-body]
    """Run something beside the gateway, from before its first request until after its last."""


@hookspec
def gateway_reloaded(gateway: "Gateway") -> None:
    """Learn that a new configuration went live."""
