"""User names and passwords (RFC 7617)."""

import binascii
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from asgi_gateway.asgi import RETRY_SOON, ASGIApp, Receive, Scope, Send
from asgi_gateway.component import Build, Refusal
from asgi_gateway.consumers import Consumers, Password
from asgi_gateway.errors import ConfigError, Problem
from asgi_gateway.stage import Stage
from asgi_gateway.store import StoreError
from asgi_gateway.units import Time

from .authentication import CONSUMERS_AWAY, Authentication, Realm, fields_of, missing_extra, principals

if TYPE_CHECKING:
    from .hashing import Hashing

LONGEST = 1024
"""Characters of a credential that are looked at: argon2 would work for every one of them."""
NO_PASSWORD = (
    "$argon2id$v=19$m=65536,t=3,p=4$835rAajoubhPM7X1D6zZtA$mEsSyTZlwwIbQkqOh6ooKNJALgCRb9MflBsq/4k+i0k"
)
"""A hash that is as dear as others, of a password that nobody has."""
BUSY = Refusal(503, "busy", RETRY_SOON, "Too many passwords wait to be checked.")


class BasicAuth(
    Authentication, name="basic_auth", stage=Stage.AUTH, serves=frozenset({"http", "websocket"}), refuses=True
):
    """Identifies the caller by user name and password of a consumer, and refuses everybody else with 401."""

    realm: Realm = "gateway"
    """What browsers show when they ask for the password."""
    hide: bool = True
    """Whether the Authorization field is removed from the request that goes upstream."""
    remember: Time = 60.0
    """How long a password that fitted an argon2 hash is not hashed again: that takes some 50 ms. 0: never."""
    threads: Annotated[int, Field(ge=1, le=64)] = 2
    """Passwords that are hashed at one time, in one worker, beside the event loop."""
    max_waiting: Annotated[int, Field(ge=0)] = 100
    """Passwords that may wait for that; more are refused with 503."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        refuse, consumers = build.refuse(app), build.consumers
        identify = self.identifier(*(["authorization"] if self.hide else []))
        principal = principals("basic_auth")
        challenge = ((b"www-authenticate", f'Basic realm="{self.realm}", charset="UTF-8"'.encode()),)
        none = Refusal(401, "no_credentials", challenge, "This request needs a password.", missing=True)
        several = Refusal(401, "several_credentials", challenge, "There is more than one Authorization.")
        wrong = Refusal(401, "wrong_credentials", challenge, "User name or password is wrong.")
        hashing = self.hashing(build)
        # Without a known user, too, something is compared: how long it takes tells nothing about users.
        nobody = consumers.argon2() or NO_PASSWORD
        asks = consumers.records is not None

        async def hashed(
            scope: Scope, receive: Receive, send: Send, known: Password | None, password: bytes
        ) -> None:
            assert hashing is not None
            fits = await hashing.fits(known.argon2 if known is not None else nobody, password)
            if fits and known is not None:
                await app(identify(scope, principal(known.owner)), receive, send)
            else:
                await refuse(scope, receive, send, BUSY if fits is None else wrong)

        def basic_auth(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            found = fields_of(scope, b"authorization")
            if len(found) > 1:
                return refuse(scope, receive, send, several)
            if not found or found[0][:6].lower() != b"basic ":
                return refuse(scope, receive, send, none)
            username, password = read(found[0][6:])
            known = consumers.password(username)
            if known is None and asks and username:
                return ask(scope, receive, send, username, password)
            return judge(scope, receive, send, known, password)

        def judge(
            scope: Scope, receive: Receive, send: Send, known: Password | None, password: bytes
        ) -> Awaitable[None]:
            if known is not None and not known.argon2 and known.equals(password):
                return app(identify(scope, principal(known.owner)), receive, send)
            if hashing is None:
                return refuse(scope, receive, send, wrong)
            # Whatever is wrong takes as long: nobody learns who exists, nor whose password is kept as a hash.
            return hashed(
                scope, receive, send, known if known is not None and known.argon2 else None, password
            )

        async def ask(scope: Scope, receive: Receive, send: Send, username: str, password: bytes) -> None:
            try:
                known = await consumers.ask_password(username)
            except StoreError:
                await refuse(scope, receive, send, CONSUMERS_AWAY)
            else:
                await judge(scope, receive, send, known, password)

        return basic_auth

    def hashing(self, build: Build) -> "Hashing | None":
        """What compares hashed passwords, where there are any or may be some in the store."""
        hashes = argon2_hashes(build.consumers)
        if not hashes and build.consumers.records is None:
            return None
        try:
            from .hashing import Hashing, check_hash
        except ImportError:
            raise missing_extra("a hashed password", "argon2-cffi") from None
        for consumer, text in hashes:
            try:
                check_hash(text)
            except ValueError:
                raise ConfigError(Problem(f"a password of {consumer!r} is no argon2 hash")) from None
        return build.keep(
            ("hashing", self.threads, self.max_waiting, self.remember),
            lambda: Hashing(self.threads, self.max_waiting, self.remember, build.clock.monotonic),
            close=Hashing.aclose,
            shared=True,
        )


def argon2_hashes(consumers: Consumers) -> list[tuple[str, str]]:
    """Every hash with the name of its consumer."""
    every = [(each.name, login.password.get_secret_value()) for each in consumers for login in each.basic]
    return [(name, text) for name, text in every if Password.is_hash(text)]


def read(credentials: bytes) -> tuple[str, bytes]:
    """User name and password; two empty ones, which nobody has, if they cannot be read."""
    credentials = credentials.strip()
    if len(credentials) > LONGEST:
        return "", b""
    try:
        username, colon, password = binascii.a2b_base64(credentials, strict_mode=True).partition(b":")
        return (username.decode(), password) if colon else ("", b"")
    except ValueError:
        return "", b""
