"""The only place where a failing upstream becomes a response."""

import asyncio
from asyncio import current_task, get_running_loop

from .asgi import RETRY_SOON, ASGIApp, Receive, Scope, Send
from .call import CALL, Call, Failure
from .clock import Clock
from .config import TimeoutConfig
from .errors import Aborted, CallerLeft, Rejected, UpstreamError
from .exchange import EXCHANGE, Exchange
from .refusing import refuse, tell
from .ticker import Ticker


def boundary(app: ASGIApp, name: str, timeouts: TimeoutConfig, ticker: Ticker, clock: Clock) -> ASGIApp:
    """Make a Call of what goes in, and a response of what goes wrong."""
    total, monotonic = timeouts.total, clock.monotonic

    async def upstream(scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope[EXCHANGE]
        now = monotonic()
        loop = exchange.task.get_loop() if exchange.task is not None else get_running_loop()
        task = current_task(loop)
        deadline = now + total
        if deadline > exchange.deadline:
            deadline = exchange.deadline
        call = Call(name, send, now, deadline, task, timeouts)
        if exchange.foreign:
            call.receive = receive
        exchange.calls.append(call)
        scope[CALL] = call
        ticker.add(call, loop)
        try:
            if call.deadline <= now:
                raise UpstreamError("total_timeout", "pool")
            await app(scope, receive, call.send)
            if call.discarded is None:
                return
            raise call.discarded
        except (UpstreamError, Rejected) as error:
            failure: Failure = error
        except Exception:
            # Whoever discards an answer knows it, whatever an endpoint makes of what came out of its `send`.
            if not isinstance(call.discarded, UpstreamError):
                raise
            failure = call.discarded
        except asyncio.CancelledError:
            if call.left:
                exchange.left = True
            if call.expired is None or task is None or task.uncancel():
                raise
            failure = call.expired
        finally:
            ticker.discard(call)
            rescues = call.rescues
            call.close()
        try:
            if rescues is not None and not call.started:
                for rescue in reversed(rescues):
                    if await rescue(scope, receive, send, call, failure):
                        return
            await fail(scope, send, call, failure)
        finally:
            # Its traceback knows this frame: nobody should have to collect the ring.
            del failure

    return upstream


async def fail(scope: Scope, send: Send, call: Call, failure: Failure) -> None:
    exchange: Exchange = scope[EXCHANGE]
    if isinstance(failure, Rejected):
        await refuse(scope, send, failure.refusal)
        return
    exchange.outcome, exchange.cause = "upstream_failed", failure.reason
    if scope["type"] == "websocket" and exchange.status == 101:
        if not exchange.complete:  # 1014 would say more, but browsers take it for a mistake of the server
            await close(send)
        return
    if call.started:
        exchange.outcome = "aborted"
        raise Aborted(str(failure)) from failure
    headers = RETRY_SOON if failure.status == 503 else ()
    detail = DETAILS[failure.reason]
    await tell(scope, send, exchange, failure.status, failure.reason, detail, headers, upstream=call.upstream)


async def close(send: Send) -> None:
    """Tell the caller of a WebSocket."""
    try:
        await send({"type": "websocket.close", "code": 1011, "reason": "the upstream failed"})
    except OSError as gone:
        raise CallerLeft from gone


# What a caller may know. The address of the target and the system's words stay in the log.
DETAILS = {
    "connect_failed": "The upstream could not be reached.",
    "connect_timeout": "The upstream took too long to accept a connection.",
    "tls_failed": "No secure connection to the upstream could be made.",
    "reset": "The upstream closed the connection before it had answered.",
    "protocol_error": "The answer of the upstream is not valid HTTP.",
    "tls_timeout": "The upstream took too long to agree on a secure connection.",
    "write_timeout": "The upstream took too long to read the request.",
    "head_timeout": "The upstream took too long to answer.",
    "idle_timeout": "The upstream took too long to go on with its answer.",
    "total_timeout": "The time for this request is over.",
    "no_target": "The upstream has no target that could be asked.",
    "pool_full": "Too many requests wait for this upstream.",
    "pool_timeout": "No connection to the upstream became free in time.",
    "exhausted": "This gateway has no room for more connections.",
    "raised": "The upstream failed.",
    "incomplete": "The upstream did not finish its answer.",
    "bad_status": "The answer of the upstream could not be used.",
}
