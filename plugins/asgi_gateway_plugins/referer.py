"""Pages from which requests may come, by their Referer."""

import re
from collections.abc import Awaitable
from typing import Annotated

from pydantic import AfterValidator, Field

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send
from asgi_gateway.component import Build, Component, Refusal
from asgi_gateway.mistake import mistake
from asgi_gateway.stage import Stage

from .fields import values

HOST = re.compile(r"(?:\*\.)?[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63}){0,20}|\[[0-9A-Fa-f:.]{2,45}\]")
REFERER = re.compile(rb"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]*)?(?:[/?#].*)?", re.DOTALL)
"""Strict where browsers are lenient: a user name or a backslash in front of the host is no address here."""

REFUSED = Refusal(403, "referer_not_allowed", (), "Requests from this page are not served here.")
MISSING = Refusal(403, "no_referer", (), "This request needs a Referer.")


def read_host(text: str) -> str:
    if not HOST.fullmatch(text):
        hint = "a name without scheme and port, as in shop.example.com or *.example.com"
        raise mistake(f"{text!r} is not a host", hint, text)
    return text.lower()


class Referer(
    Component, name="referer", stage=Stage.GUARD, serves=frozenset({"http", "websocket"}), refuses=True
):
    """Admits requests that come from pages of some hosts, and refuses all others with 403."""

    allow: tuple[Annotated[str, AfterValidator(read_host)], ...] = Field(min_length=1)
    """Hosts of pages. `*.example.com` is every host below example.com, not example.com itself."""
    allow_missing: bool = False
    """Whether requests may pass that do not say where they come from."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        hosts = frozenset(host.encode() for host in self.allow if not host.startswith("*"))
        # With the dot: evil-example.com is not below example.com.
        below = tuple(host[1:].encode() for host in self.allow if host.startswith("*"))
        allows_missing, refuse = self.allow_missing, build.refuse(app)

        def referer(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            # A handshake has no Referer: browsers say with its Origin where it comes from.
            said = values(scope, b"referer" if scope["type"] == "http" else b"origin")
            if not said:
                if allows_missing:
                    return app(scope, receive, send)
                return refuse(scope, receive, send, MISSING)
            found = REFERER.fullmatch(said.lower())
            if found is None or not (found[1] in hosts or found[1].endswith(below)):
                return refuse(scope, receive, send, REFUSED)
            return app(scope, receive, send)

        return referer
