"""One of several ways to find out who is calling is enough."""

from collections.abc import Sequence
from dataclasses import replace

from asgi_gateway.asgi import ASGIApp, Header, Receive, Scope, Send, header
from asgi_gateway.component import Build, Refusal
from asgi_gateway.consumers import Principal
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.stage import Stage

from .authentication import Authentication
from .trial import Entries, Trial, behind, enabled, forwarded, fresh, on_trial, owned

NO_CREDENTIALS = Refusal(401, "no_credentials", (), "This request needs credentials.", missing=True)


class AnyOf(
    Authentication, name="any_of", stage=Stage.AUTH, serves=frozenset({"http", "websocket"}), refuses=True
):
    """Lets a request in that one of several AUTH components lets in, tried one after the other."""

    of: Entries
    """The components, with their options, as in a list of `components`."""
    anonymous: str = ""
    """The consumer that a request without any credentials is. Empty: it is refused."""

    def owns(self) -> tuple[str, ...]:
        return (*super().owns(), *owned(self.of))

    def forwarded(self) -> tuple[str, ...]:
        return forwarded(self.of)

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        refuse, end = build.refuse(app), behind(app)
        alternatives = [
            on_trial(component, end, build, place) for place, component in enumerate(enabled(self.of))
        ]
        identify, nobody = self.identifier(), self.nobody(build)

        async def any_of(scope: Scope, receive: Receive, send: Send) -> None:
            exchange: Exchange = scope[EXCHANGE]
            before, trial = exchange.principal, Trial(scope)
            for place, alternative in enumerate(alternatives):
                await alternative(trial.enter(scope), fresh(scope, receive), send)
                if len(trial.failures) == place and not trial.passed:
                    # It answered by itself.
                    return
                if trial.passed:
                    if not all(refusal.missing for _, refusal in trial.failures):
                        exchange.tag("any_of", trial.told())
                    return
                # One that failed says nothing about the caller.
                exchange.principal = before
            receive = fresh(scope, receive)
            refusals = [refusal for _, refusal in trial.failures]
            if nobody is not None and carries_nothing(scope, refusals):
                await app(identify(scope, nobody), receive, send)
                return
            exchange.tag("any_of", trial.told())
            await refuse(scope, receive, send, joined(refusals))

        return any_of

    def nobody(self, build: Build) -> Principal | None:
        """Who calls without credentials, if they may."""
        if not self.anonymous:
            return None
        known = build.consumers.get(self.anonymous)
        return Principal(self.anonymous, "anonymous", known.groups if known is not None else ())


def carries_nothing(scope: Scope, refusals: Sequence[Refusal]) -> bool:
    """Whether a request has no credentials at all: who shows wrong ones is not anonymous."""
    return all(refusal.missing for refusal in refusals) and header(scope["headers"], b"authorization") is None


def joined(refusals: Sequence[Refusal]) -> Refusal:
    """One refusal out of all: that of the first way which the caller tried, with the challenges of all."""
    tried = next((refusal for refusal in refusals if not refusal.missing), NO_CREDENTIALS)
    if tried.status != 401:
        return replace(tried, component="")
    challenges: dict[Header, None] = {}
    for refusal in refusals:
        challenges |= dict.fromkeys(pair for pair in refusal.headers if pair[0] == b"www-authenticate")
    if not challenges:
        # A 401 has to have one (RFC 9110 11.6.1), and certificates, for example, have none.
        tried = next((refusal for refusal in refusals if refusal.status != 401), replace(tried, status=403))
        return replace(tried, component="")
    others = [pair for pair in tried.headers if pair[0] != b"www-authenticate"]
    return replace(tried, headers=(*challenges, *others), component="")
