"""The only place where a request is refused and told so, and the only one that writes `exchange.refused`."""

from dataclasses import replace
from typing import Any

from .asgi import ASGIApp, Headers, Receive, Scope, Send, answer, problem
from .component import Refusal
from .errors import Rejected
from .exchange import EXCHANGE, Exchange, Told


class Refusing:
    """Answers with a problem; under `mode: report` it records the refusal and lets the request go on.

    In the chain of an upstream it raises Rejected instead of answering: that a breaker is open is a failure
    of the call, which a fallback may mend.
    """

    __slots__ = ("_app", "_component", "_raising", "reporting")

    def __init__(self, app: ASGIApp, component: str, *, reporting: bool, raising: bool = False) -> None:
        self._app = app
        self._component = component
        self._raising = raising
        self.reporting = reporting

    async def __call__(self, scope: Scope, receive: Receive, send: Send, refusal: Refusal) -> None:
        exchange: Exchange = scope[EXCHANGE]
        if not refusal.component:
            refusal = replace(refusal, component=self._component)
        if self.reporting:
            if exchange.reported is None:
                exchange.reported = []
            exchange.reported.append(refusal)
            await self._app(scope, receive, send)
            return
        if self._raising:
            raise Rejected(refusal)
        await refuse(scope, send, refusal)


async def refuse(scope: Scope, send: Send, refusal: Refusal) -> None:
    """Record the refusal, and tell the caller."""
    exchange: Exchange = scope[EXCHANGE]
    exchange.refused = refusal
    exchange.outcome, exchange.cause = "refused", refusal.reason
    await tell(
        scope,
        send,
        exchange,
        refusal.status,
        refusal.reason,
        refusal.detail,
        refusal.headers,
        component=refusal.component,
        **dict(refusal.members),
    )


async def tell(
    scope: Scope,
    send: Send,
    exchange: Exchange,
    status: int,
    reason: str,
    detail: str,
    headers: Headers = (),
    **members: Any,
) -> None:
    """Answer a request that came to nothing: with a problem, or as its route wants it."""
    members = {"request_id": exchange.id, "route": exchange.route, **members}
    if exchange.render is None:
        await answer(scope, send, status, problem(status, reason, detail, **members), headers)
        return
    told = Told(status, reason, detail, headers, members)
    status, headers, content_type, body = exchange.render(exchange, told)
    await answer(scope, send, status, body, headers, content_type)
