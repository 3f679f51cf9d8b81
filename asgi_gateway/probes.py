"""The only place that answers load balancers and orchestrators."""

from collections.abc import Callable

from .asgi import ASGIApp, Receive, Scope, Send, answer
from .config import GatewayConfig
from .kernel import Kernel
from .live import Serving
from .routing import Entry, Pattern

NAMES = {"live": "gateway-live", "ready": "gateway-ready"}


def probes(config: GatewayConfig, kernel: Kernel) -> list[Entry[Serving]]:
    """Routes of their own, without any component. They stand before every other route of the same path."""
    questions: list[tuple[str, str, Callable[[], bool]]] = [
        ("live", config.probes.live, lambda: True),
        ("ready", config.probes.ready, lambda: kernel.ready),
    ]
    return [entry(name, path, good) for name, path, good in questions if path]


def entry(name: str, path: str, good: Callable[[], bool]) -> Entry[Serving]:
    serving = Serving(
        upstream="", http=probe(name, good), websocket=None, timeout=None, answers_preflight=False
    )
    return Entry(
        name=NAMES[name],
        pattern=Pattern(path),
        methods=frozenset({"GET", "HEAD"}),
        hosts=(),
        headers=(),
        query=(),
        priority=1 << 31,
        payload=serving,
    )


def probe(name: str, good: Callable[[], bool]) -> ASGIApp:
    async def probe(scope: Scope, receive: Receive, send: Send) -> None:
        status, word = (200, name) if good() else (503, f"not {name}")
        body = b'{"status":"%b"}' % word.encode()
        await answer(scope, send, status, body, [(b"cache-control", b"no-store")], b"application/json")

    return probe
