"""The only place where a request is refused, and the only one that writes `exchange.refused`."""

from dataclasses import replace

from .asgi import ASGIApp, Receive, Scope, Send, answer, problem
from .component import Refusal
from .exchange import EXCHANGE, Exchange


class Refusing:
    """Answers with a problem; under `mode: report` it records the refusal and lets the request go on."""

    __slots__ = ("_app", "_component", "reporting")

    def __init__(self, app: ASGIApp, component: str, *, reporting: bool) -> None:
        self._app = app
        self._component = component
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
        await refuse(scope, send, refusal)


async def refuse(scope: Scope, send: Send, refusal: Refusal) -> None:
    """Record the refusal, and tell the caller."""
    exchange: Exchange = scope[EXCHANGE]
    exchange.refused = refusal
    exchange.outcome, exchange.cause = "refused", refusal.reason
    body = problem(
        refusal.status,
        refusal.reason,
        refusal.detail,
        request_id=exchange.id,
        route=exchange.route,
        component=refusal.component,
        **dict(refusal.members),
    )
    await answer(scope, send, refusal.status, body, refusal.headers)
