"""Access lists: which of the callers that are known may come here."""

from collections.abc import Awaitable

from pydantic import model_validator

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send
from asgi_gateway.component import Build, Component, Refusal
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.stage import Stage

NOT_ALLOWED = Refusal(403, "not_allowed", (), "This caller may not come here.")
UNIDENTIFIED = Refusal(403, "unidentified", (), "Nobody found out who is calling.")


class Acl(
    Component, name="acl", stage=Stage.AUTH, rank=10, serves=frozenset({"http", "websocket"}), refuses=True
):
    """Lets consumers and groups in that are listed, and refuses all other callers with 403."""

    consumers: tuple[str, ...] = ()
    """Consumers that may come."""
    groups: tuple[str, ...] = ()
    """Groups whose members may come."""
    not_consumers: tuple[str, ...] = ()
    """Consumers that may not come, whatever else is listed."""
    not_groups: tuple[str, ...] = ()
    """Groups whose members may not come, whatever else is listed."""

    @model_validator(mode="after")
    def has_names(self) -> "Acl":
        if not (self.consumers or self.groups or self.not_consumers or self.not_groups):
            raise ValueError("name consumers or groups that may come, or may not")
        return self

    def needs_caller(self) -> str:
        return ", ".join(name for name in type(self).model_fields if getattr(self, name))

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        refuse = build.refuse(app)
        consumers, groups = frozenset(self.consumers), frozenset(self.groups)
        not_consumers, not_groups = frozenset(self.not_consumers), frozenset(self.not_groups)
        others = not consumers and not groups

        def acl(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            exchange: Exchange = scope[EXCHANGE]
            principal = exchange.principal
            if principal is None:
                return refuse(scope, receive, send, UNIDENTIFIED)
            name, member = principal.consumer, principal.groups
            if name in not_consumers or not not_groups.isdisjoint(member):
                return refuse(scope, receive, send, NOT_ALLOWED)
            if others or name in consumers or not groups.isdisjoint(member):
                return app(scope, receive, send)
            return refuse(scope, receive, send, NOT_ALLOWED)

        return acl
