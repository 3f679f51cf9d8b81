"""Addresses that may come in, and addresses that may not."""

from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from typing import Annotated

from pydantic import Field, model_validator

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send
from asgi_gateway.component import Build, Component, Refusal
from asgi_gateway.errors import ConfigError, Problem
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.mistake import mistake
from asgi_gateway.stage import Stage
from asgi_gateway.units import Time

from .expressions import Expression, any_of
from .listed import Listed
from .networks import Network, Networks, networks_in, pack, read_file, spelt

REMEMBERED = 4096
"""Addresses whose verdict is remembered."""

DENIED = Refusal(403, "address_denied", (), "Requests from this address are not served here.")
NOT_ALLOWED = Refusal(403, "address_not_allowed", (), DENIED.detail)

Verdict = Callable[[str], Refusal | None]
Files = tuple[tuple[str, bytes], ...]
"""Names and contents."""


class IpFilter(
    Component,
    name="ip_filter",
    stage=Stage.GUARD,
    rank=-20,
    serves=frozenset({"http", "websocket"}),
    refuses=True,
):
    """Admits callers by their address, and refuses everybody else with 403.

    What denies wins; if something is allowed, whatever is not is refused.
    """

    allow: tuple[Network, ...] = ()
    """Networks and addresses that may come in. `unix`: peers without an address."""
    deny: tuple[Network, ...] = ()
    """Networks and addresses that may not."""
    allow_files: tuple[str, ...] = ()
    """Files with more of what may come in: one network in a line, `#` begins a comment."""
    deny_files: tuple[str, ...] = ()
    """Files with more of what may not. All files are read at start and at each reload."""
    allow_list: Annotated[str, Field(max_length=200)] = ""
    """A list in the shared store with more of what may come in, in lines as in a file. Empty: none."""
    deny_list: Annotated[str, Field(max_length=200)] = ""
    """A list in the shared store with more of what may not."""
    refresh: Annotated[Time, Field(ge=0.01, le=3600)] = 5.0
    """How often lists in the store are read anew."""
    allow_patterns: tuple[Expression, ...] = ()
    """Regular expressions for whole addresses that may come in."""
    deny_patterns: tuple[Expression, ...] = ()
    """Regular expressions for whole addresses that may not."""

    @model_validator(mode="after")
    def says_something(self) -> "IpFilter":
        if not any(getattr(self, name) for name in type(self).model_fields if name != "refresh"):
            raise mistake("allows and denies nothing", "as in `allow: [10.0.0.0/8]`")
        return self

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        allowed, denied = read_all(self.allow_files), read_all(self.deny_files)
        refuse = build.refuse(app)
        # All routes share what is equal, and so does the next configuration if the files still say the same.
        if not (self.allow_list or self.deny_list):
            make = partial(self.verdict, allowed, denied)
            verdict = build.keep((self, allowed, denied), make, shared=True)
        else:
            listed = self.listed(build, allowed, denied)

            def verdict(address: str) -> Refusal | None:
                return listed.made(address)

        def ip_filter(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            exchange: Exchange = scope[EXCHANGE]
            refusal = verdict(exchange.client)
            if refusal is None:
                return app(scope, receive, send)
            return refuse(scope, receive, send, refusal)

        return ip_filter

    def listed(self, build: Build, allowed: Files, denied: Files) -> Listed[Verdict]:
        """What follows the lists in the store."""
        if not build.shares:
            what = "lists in the store need one that is shared"
            raise ConfigError(Problem(what, hint="as in `store: redis://127.0.0.1:6379/0`"))
        keys = [f"ip_filter/{name}" for name in (self.allow_list, self.deny_list) if name]

        def make(said: tuple[bytes, ...]) -> Verdict:
            lists = dict(zip(keys, said, strict=True))

            def of(name: str) -> Files:
                return ((name, lists[f"ip_filter/{name}"]),) if name else ()

            return self.verdict((*allowed, *of(self.allow_list)), (*denied, *of(self.deny_list)))

        store, seconds = build.store, self.refresh
        key = ("listed", self, allowed, denied)
        return build.keep(key, lambda: Listed(store, keys, seconds, make), run=Listed.run, shared=True)

    def verdict(self, allow_files: Files, deny_files: Files) -> Verdict:
        """The function that says why an address is refused, if it is."""
        allowed = Networks([*self.allow, *lines_of(allow_files)])
        denied = Networks([*self.deny, *lines_of(deny_files)])
        allows, denies = any_of(self.allow_patterns, whole=True), any_of(self.deny_patterns, whole=True)
        patterns = bool(self.allow_patterns or self.deny_patterns)
        open_to_all = not (self.allow or self.allow_files or self.allow_patterns or self.allow_list)

        @lru_cache(REMEMBERED)
        def verdict(address: str) -> Refusal | None:
            packed = pack(address)
            text = spelt(packed) if packed and patterns else ""
            if address and not packed:
                # Nobody can say what it is, so nobody can say that it is not denied.
                return NOT_ALLOWED
            if (denied.hold(packed) or (patterns and denies(text))) if packed else denied.unix:
                return DENIED
            if open_to_all or (
                (allowed.hold(packed) or (patterns and allows(text))) if packed else allowed.unix
            ):
                return None
            return NOT_ALLOWED

        return verdict


def read_all(names: tuple[str, ...]) -> Files:
    return tuple((name, read_file(name)) for name in names)


def lines_of(files: Files) -> list[str]:
    return [line for name, content in files for line in networks_in(name, content)]
