"""For the tests of plugins: a gateway in the process, upstreams that fail on demand, checks of components."""

from .clock import HandClock
from .conformance import check_component
from .driving import Stream, WebSocket
from .harness import Client, gateway_around
from .messages import Request, Response
from .upstreams import InProcess, Seen, Upstream

__all__ = [
    "Client",
    "HandClock",
    "InProcess",
    "Request",
    "Response",
    "Seen",
    "Stream",
    "Upstream",
    "WebSocket",
    "check_component",
    "gateway_around",
]
