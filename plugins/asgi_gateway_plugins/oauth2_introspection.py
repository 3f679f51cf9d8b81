"""Opaque tokens: the authorization server is asked what each of them is worth (RFC 7662)."""

import asyncio
import logging
from base64 import b64encode
from collections.abc import Awaitable
from hashlib import sha256
from typing import Annotated, Literal
from urllib.parse import quote, quote_plus

from pydantic import Field, SecretStr

from asgi_gateway.asgi import RETRY_SOON, ASGIApp, Headers, Receive, Scope, Send
from asgi_gateway.component import Build, Refusal
from asgi_gateway.errors import ControlError
from asgi_gateway.stage import Stage
from asgi_gateway.units import Span, Time

from .authentication import ServiceUrl
from .bearer import Bearer, Granted, Remembered

LARGEST = 64 * 1024
"""Bytes of an answer."""
UNAVAILABLE = Refusal(
    503, "introspection_unavailable", RETRY_SOON, "It cannot be asked what the token is worth."
)

logger = logging.getLogger("asgi_gateway")


class OAuth2Introspection(
    Bearer,
    name="oauth2_introspection",
    stage=Stage.AUTH,
    serves=frozenset({"http", "websocket"}),
    refuses=True,
):
    """Asks the authorization server about tokens, and refuses callers without a good one with 401."""

    url: ServiceUrl
    """The introspection endpoint."""
    client_id: Annotated[str, Field(min_length=1)]
    """As whom the gateway asks."""
    client_secret: SecretStr
    """The secret of that client."""
    client_auth: Literal["basic", "post"] = "basic"
    """Whether id and secret are sent as Basic credentials, or in the body."""
    issuer: str = ""
    """What `iss` has to be, if this is given."""
    cache: Time = 60.0
    """How long a good answer is kept, until the token expires at most. 0: not at all."""
    negative_cache: Time = 5.0
    """How long it is kept that a token is no good."""
    max_remembered: Annotated[int, Field(ge=1)] = 10_000
    """Good answers that are kept, and as many bad ones."""
    timeout: Span = 3.0
    """How long the server may take to answer."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        refuse, find, enter = build.refuse(app), self.finder(), self.enterer()
        asker = Asker(self, build)

        async def wait(scope: Scope, receive: Receive, send: Send, token: bytes, digest: bytes) -> None:
            outcome = await asker.ask(token, digest)
            if isinstance(outcome, Refusal):
                await refuse(scope, receive, send, outcome)
            else:
                await app(enter(scope, outcome), receive, send)

        def oauth2_introspection(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            token = find(scope)
            if isinstance(token, Refusal):
                return refuse(scope, receive, send, token)
            digest = sha256(token).digest()
            known = asker.known(digest)
            if known is None:
                return wait(scope, receive, send, token, digest)
            if isinstance(known, Refusal):
                return refuse(scope, receive, send, known)
            return app(enter(scope, known), receive, send)

        return oauth2_introspection


class Asker:
    """Asks about tokens, about the same one once at a time, and keeps the answers for a while."""

    def __init__(self, options: OAuth2Introspection, build: Build) -> None:
        self._options = options
        self._control, self._time, self._now = build.control, build.clock.time, build.clock.monotonic
        self._judge = options.judge(build.consumers, options.issuer)
        self._inactive = options.invalid("token_inactive", "The token is no good, or not any more.")
        # Those that are no good cannot push out the good ones.
        self._good: Remembered[tuple[Granted, float]] = Remembered(options.max_remembered)
        self._bad: Remembered[tuple[Refusal, float]] = Remembered(options.max_remembered)
        self._asking: dict[bytes, asyncio.Task[Granted | Refusal]] = {}
        self._headers, self._fixed = self._credentials()

    def known(self, digest: bytes) -> Granted | Refusal | None:
        """What was answered about a token, as long as that holds."""
        good = self._good.get(digest)
        if good is not None and self._now() < good[1] and self._time() < good[0].until:
            return good[0]
        bad = self._bad.get(digest)
        return bad[0] if bad is not None and self._now() < bad[1] else None

    async def ask(self, token: bytes, digest: bytes) -> Granted | Refusal:
        task = self._asking.get(digest)
        if task is None:
            task = self._asking[digest] = asyncio.get_running_loop().create_task(self._ask(token, digest))
        # In a task of its own: others wait for it, too.
        return await asyncio.shield(task)

    async def _ask(self, token: bytes, digest: bytes) -> Granted | Refusal:
        try:
            outcome = await self._fetch(token)
        finally:
            del self._asking[digest]
        if isinstance(outcome, Granted):
            self._good.add(digest, (outcome, self._now() + self._options.cache))
        elif outcome is not UNAVAILABLE:
            self._bad.add(digest, (outcome, self._now() + self._options.negative_cache))
        return outcome

    async def _fetch(self, token: bytes) -> Granted | Refusal:
        import msgspec

        body = self._fixed + b"token=" + quote(token, safe="").encode()
        options = self._options
        try:
            reply = await self._control.call(
                "POST", options.url, self._headers, body, timeout=options.timeout, max_size=LARGEST
            )
            claims = msgspec.json.decode(reply.body) if reply.status == 200 else None
        except ControlError as error:
            logger.debug("%s cannot be asked: %s", options.url, error)
            return UNAVAILABLE
        except (msgspec.MsgspecError, RecursionError):
            claims = None
        if not isinstance(claims, dict) or not isinstance(claims.get("active"), bool):
            # Not what the RFC lets a server answer; 401, for example, if it does not know this client.
            logger.error("%s answered %s, and not what a token is worth", options.url, reply.status)
            return UNAVAILABLE
        return self._judge(claims, self._time()) if claims["active"] else self._inactive

    def _credentials(self) -> tuple[Headers, bytes]:
        """The fields that are sent, and how the body begins."""
        options = self._options
        client, secret = quote_plus(options.client_id), quote_plus(options.client_secret.get_secret_value())
        headers = [
            (b"content-type", b"application/x-www-form-urlencoded"),
            (b"accept", b"application/json"),
        ]
        if options.client_auth == "post":
            return headers, f"client_id={client}&client_secret={secret}&".encode()
        login = b"Basic " + b64encode(f"{client}:{secret}".encode())
        return [*headers, (b"authorization", login)], b""
