"""For the tests of plugins: a whole gateway in the process, upstreams that fail on demand, and a check of components."""

from .clock import HandClock
from .conformance import check_component
from .driving import Exchange, Request, Response, WebSocket
from .harness import Client, gateway_around
from .upstreams import InProcess, Seen, Upstream

__all__ = [
    "Client",
    "Exchange",
    "HandClock",
    "InProcess",
    "Request",
    "Response",
    "Seen",
    "Upstream",
    "WebSocket",
    "check_component",
    "gateway_around",
]
