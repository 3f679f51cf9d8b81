"""The only place where the gateway speaks ASGI's lifespan protocol as an application."""

import logging
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from .asgi import Receive, Send

logger = logging.getLogger("asgi_gateway")


async def follow(lifespan: AbstractAsyncContextManager[None], receive: Receive, send: Send) -> None:
    """Enter it when the server starts up, and leave it when it shuts down."""
    await receive()
    stack = AsyncExitStack()
    try:
        await stack.enter_async_context(lifespan)
    except Exception as error:
        logger.error("the gateway could not start", exc_info=error)
        await send({"type": "lifespan.startup.failed", "message": f"{type(error).__name__}: {error}"})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await stack.aclose()
    await send({"type": "lifespan.shutdown.complete"})
