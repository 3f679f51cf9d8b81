"""The only place that knows the example of `asgi-gateway demo`: a gateway and the app behind it."""

import json
from secrets import token_hex
from typing import Any

from ..asgi import Receive, Scope, Send, answer
from . import logs
from .listening import close, open_sockets, place
from .serving import serve


def document(listen: str, key: str) -> dict[str, Any]:
    """What a configuration file of the demo would hold."""
    return {
        "server": {"listen": listen, "drain": "0s"},
        "upstreams": {"orders": {"asgi": f"{__name__}:orders"}},
        "consumers": [{"name": "alice", "keys": [key]}],
        "components": ["request_id"],
        "routes": [
            {"name": "public", "path": "/public/*", "upstream": "orders"},
            {
                "name": "orders",
                "path": "/orders/{id}",
                "upstream": "orders",
                "components": ["key_auth", {"rate_limit": {"limit": "5/minute", "by": "consumer"}}],
            },
        ],
    }


async def orders(scope: Scope, receive: Receive, send: Send) -> None:
    """The service behind the gateway: answers with what reached it."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    seen = {"method": scope["method"], "path": scope["path"], "headers": headers}
    await answer(scope, send, 200, json.dumps(seen, indent=2).encode() + b"\n", (), b"application/json")


def invitation(url: str, key: str) -> str:
    """Three commands that show what the gateway does."""
    return f"""The gateway listens on {url}. Try:

  curl -i {url}/public/hello
  curl -i {url}/orders/7
  curl -i -H 'X-API-Key: {key}' {url}/orders/7

The second has no key and gets 401; the third gets 429 from its sixth time in a minute. Ctrl-C ends it."""


def demo(port: int) -> int:
    """Serve the example until a signal ends it; the exit code."""
    from ..gateway import Gateway

    logs.set_up()
    key = f"demo-{token_hex(8)}"
    listen = f"127.0.0.1:{port}"
    gateway = Gateway.parse(document(listen, key))
    sockets = open_sockets(listen, gateway.config.server.limits.backlog)
    try:
        return serve(gateway, sockets, lambda: print(invitation(place(sockets[0], "http"), key), flush=True))
    finally:
        close(sockets)
