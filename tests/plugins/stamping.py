"""What stands behind gateways whose rate is measured: it says when a request came, and to whom."""

import os
from time import monotonic

from asgi_gateway.asgi import Receive, Scope, Send, answer


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    # All processes of a machine have the same monotonic clock.
    stamp = f"{monotonic()} {os.getpid()}".encode()
    await answer(scope, send, 200, stamp, content_type=b"text/plain")
