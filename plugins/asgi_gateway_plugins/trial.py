"""Authentication by several components: each may fail without a word to the caller, until all is known."""

from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import AfterValidator, Field

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send
from asgi_gateway.component import Build, Component, Refusal
from asgi_gateway.config import Chain, Use
from asgi_gateway.errors import ConfigError
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.stage import Stage

TRIAL = "asgi_gateway.trial"
NOT_SERVED = Refusal(401, "not_served", (), "This is no way to identify the caller of a WebSocket.")


def read_entries(entries: Chain) -> Chain:
    """Entries that authenticate, and have no policy of their own: that is the business of the whole."""
    for use in entries:
        name = use.component.name
        if use.component.stage is not Stage.AUTH:
            raise ValueError(f"{name} ({use.component.stage.name}) does not find out who is calling")
        if use.when is not None or use.mode == "report":
            raise ValueError(f"{name} takes no `when` and no `mode` here: write them beside `of`")
    if not any(use.enabled for use in entries):
        raise ValueError("nothing in it is enabled")
    return entries


Entries = Annotated[Chain, Field(min_length=1), AfterValidator(read_entries)]


class Trial:
    """One attempt of a request to pass; it may stand inside of another one."""

    __slots__ = ("consumer", "failures", "outer", "passed")

    def __init__(self, scope: Scope) -> None:
        self.outer: Trial | None = scope.get(TRIAL)
        self.passed = False
        self.failures: list[tuple[str, Refusal]] = []
        """Which component refused it, and why."""
        self.consumer: str | None = None

    def enter(self, scope: Scope) -> Scope:
        return {**scope, TRIAL: self}

    def leave(self, scope: Scope) -> Scope:
        """The scope for whoever comes behind: it knows nothing of this trial."""
        inner = {**scope}
        if self.outer is None:
            inner.pop(TRIAL, None)
        else:
            inner[TRIAL] = self.outer
        return inner

    def told(self) -> list[str]:
        """The failures for a log."""
        return [f"{name}: {refusal.reason}" for name, refusal in self.failures]


class Failing:
    """Notes a refusal in the trial of the request, and sends nothing."""

    reporting = False

    def __init__(self, component: str) -> None:
        self._component = component

    async def __call__(self, scope: Scope, receive: Receive, send: Send, refusal: Refusal) -> None:
        scope[TRIAL].failures.append((self._component, refusal))


def on_trial(component: Component, app: ASGIApp, build: Build, place: int) -> ASGIApp:
    """A component in front of `app`, whose refusals are only noted."""
    name, serves = component.name, component.serves
    try:
        inner = component.wrap(app, build.inside(name, place, lambda app: Failing(name)))
    except ConfigError as error:
        raise ConfigError(
            replace(problem, where=f"{name}: {problem.where}" if problem.where else name)
            for problem in error.problems
        ) from error
    fail = Failing(name)

    def tried(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] not in serves:
            return fail(scope, receive, send, NOT_SERVED)
        return inner(scope, receive, send)

    return tried


def behind(app: ASGIApp) -> ASGIApp:
    """What a request reaches that has passed."""

    def passed(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        trial: Trial = scope[TRIAL]
        trial.passed = True
        return app(trial.leave(scope), receive, send)

    return passed


def fresh(scope: Scope, receive: Receive) -> Receive:
    """A `receive` that begins with the first byte, whoever has read the body meanwhile."""
    exchange: Exchange = scope[EXCHANGE]
    return receive if exchange.replay is None else exchange.replay.reader()


def enabled(entries: Sequence[Use]) -> list[Component]:
    return [use.component for use in entries if use.enabled]


def forwarded(entries: Sequence[Use]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for component in enabled(entries) for name in component.forwarded()))


def owned(entries: Sequence[Use]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for use in entries for name in use.component.owns()))
