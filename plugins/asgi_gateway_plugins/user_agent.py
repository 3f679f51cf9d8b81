"""Programs that may call, by what they say they are."""

from collections.abc import Awaitable

from pydantic import model_validator

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send
from asgi_gateway.component import Build, Component, Refusal
from asgi_gateway.mistake import mistake
from asgi_gateway.stage import Stage

from .expressions import Expression, any_of
from .fields import values

LONGEST = 512
"""Bytes of a User-Agent. No browser sends so many, and what is cut off could not be judged."""

REFUSED = Refusal(403, "user_agent_not_allowed", (), "This program may not call here.")
MISSING = Refusal(403, "no_user_agent", (), "This request needs a User-Agent.")


class UserAgent(
    Component, name="user_agent", stage=Stage.GUARD, serves=frozenset({"http", "websocket"}), refuses=True
):
    """Admits callers by their User-Agent, and refuses everybody else with 403.

    What denies wins; if something is allowed, whatever is not is refused.
    """

    allow: tuple[Expression, ...] = ()
    """Regular expressions; one of them has to be found in the field."""
    deny: tuple[Expression, ...] = ()
    """Regular expressions of which none may be found in it. `(?i)` in front: upper and lower case are one."""
    allow_missing: bool = True
    """Whether requests without the field may pass."""

    @model_validator(mode="after")
    def says_something(self) -> "UserAgent":
        if not self.allow and not self.deny and self.allow_missing:
            raise mistake("refuses nobody", "as in `deny: ['(?i)scrapy']`")
        return self

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        allows, denies = any_of(self.allow, whole=False), any_of(self.deny, whole=False)
        lists, allows_missing = bool(self.allow), self.allow_missing
        refuse = build.refuse(app)

        def user_agent(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            text = values(scope, b"user-agent").decode("latin-1")
            if not text:
                if allows_missing:
                    return app(scope, receive, send)
                return refuse(scope, receive, send, MISSING)
            if len(text) > LONGEST or denies(text) or (lists and not allows(text)):
                return refuse(scope, receive, send, REFUSED)
            return app(scope, receive, send)

        return user_agent
