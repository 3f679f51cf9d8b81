"""Several ways to find out who is calling, all of which have to succeed."""

from collections.abc import Awaitable
from dataclasses import replace

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send
from asgi_gateway.component import Build, Component, Refusal
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.stage import Stage

from .trial import TRIAL, Entries, Trial, behind, enabled, forwarded, fresh, on_trial, owned

DIFFERENT = Refusal(403, "different_callers", (), "The credentials are not those of one caller.")


class AllOf(
    Component, name="all_of", stage=Stage.AUTH, serves=frozenset({"http", "websocket"}), refuses=True
):
    """Lets a request in that all of several AUTH components let in; the last one says who is calling."""

    of: Entries
    """The components, with their options, as in a list of `components`."""
    same_consumer: bool = True
    """Whether all that find out who is calling have to find the same."""

    def owns(self) -> tuple[str, ...]:
        return owned(self.of)

    def forwarded(self) -> tuple[str, ...]:
        return forwarded(self.of)

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        refuse, chain = build.refuse(app), behind(app)
        for place, component in reversed(list(enumerate(enabled(self.of)))):
            chain = on_trial(component, agreeing(chain) if self.same_consumer else chain, build, place)

        async def all_of(scope: Scope, receive: Receive, send: Send) -> None:
            exchange: Exchange = scope[EXCHANGE]
            before, trial = exchange.principal, Trial(scope)
            await chain(trial.enter(scope), receive, send)
            # Without a failure, one of them answered by itself.
            if trial.passed or not trial.failures:
                return
            # Half of what is asked for says nothing about the caller.
            exchange.principal = before
            exchange.tag("all_of", trial.told())
            _, refusal = trial.failures[0]
            await refuse(scope, fresh(scope, receive), send, replace(refusal, component=""))

        return all_of


def agreeing(app: ASGIApp) -> ASGIApp:
    """`app` for a request whose caller is the one that was found before, if any was."""

    def agrees(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange: Exchange = scope[EXCHANGE]
        trial: Trial = scope[TRIAL]
        if exchange.principal is not None:
            consumer = exchange.principal.consumer
            if trial.consumer is not None and trial.consumer != consumer:
                trial.failures.append(("all_of", DIFFERENT))
                return nothing()
            trial.consumer = consumer
        return app(scope, receive, send)

    return agrees


async def nothing() -> None:
    """Nobody is told anything yet."""
