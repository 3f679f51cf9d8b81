"""The only place that knows how opening a connection is given up, and what it means that it failed."""

import asyncio
import errno
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ..call import Call
from ..errors import Phase, UpstreamError
from ..origin import Origin

T = TypeVar("T")

HANDSHAKE = "SSL handshake is taking longer"
"""How event loops word that a TLS handshake took too long."""


async def interruptible(coroutine: Coroutine[Any, Any, T], call: Call, drop: Callable[[T], None]) -> T:
    """Await something that takes a while, so that the ticker can end it; `drop` gets a result that comes too
    late.
    """
    loop = asyncio.get_running_loop()
    waiter = call.waiter = loop.create_future()
    task = loop.create_task(coroutine)

    def done(task: "asyncio.Task[T]") -> None:
        if not waiter.done():
            waiter.set_result(None)
        elif not task.cancelled() and task.exception() is None:
            drop(task.result())

    task.add_done_callback(done)
    try:
        await waiter
    except BaseException:
        if task.done() and not task.cancelled() and task.exception() is None:
            drop(task.result())
        task.cancel()
        raise
    finally:
        call.waiter = None
    return task.result()


def sentence(error: OSError | UnicodeError) -> str:
    """What the system says, in few words."""
    if isinstance(error, UnicodeError):
        return "this is no name of a host"
    return error.strerror or str(error)


def failed(error: OSError | UnicodeError, phase: Phase, origin: Origin) -> UpstreamError:
    """What it means that no connection came to be in this phase."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return UpstreamError("exhausted", "connect", f"{origin}: {error.strerror}")
    if HANDSHAKE in str(error):
        return UpstreamError("tls_timeout", "tls", f"{origin}: {error}")
    if phase == "tls":
        return UpstreamError("tls_failed", "tls", f"{origin}: {error}")
    return UpstreamError("connect_failed", "connect", f"{origin}: {sentence(error)}")
