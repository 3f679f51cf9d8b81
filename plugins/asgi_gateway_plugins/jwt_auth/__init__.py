"""JSON Web Tokens: who has one that the issuer signed is who it says."""

from collections.abc import Awaitable
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, SecretStr, model_validator

from asgi_gateway.asgi import RETRY_SOON, ASGIApp, Receive, Scope, Send
from asgi_gateway.component import Build, Refusal
from asgi_gateway.config.model import Model
from asgi_gateway.errors import ConfigError, Problem
from asgi_gateway.stage import Stage
from asgi_gateway.units import Span

from ..authentication import WebUrl, missing_extra
from ..bearer import Bearer, Granted, Remembered

if TYPE_CHECKING:
    from .keys import Keys
    from .source import KeySource

Shared = Literal["HS256", "HS384", "HS512"]
Public = Literal[
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
    "Ed448",
]

NO_KEYS = Refusal(503, "keys_unavailable", RETRY_SOON, "The keys of the issuer cannot be had.")


class JwtKey(Model):
    """A key that does not change, and the one algorithm that it is for."""

    id: str = ""
    """The `kid` of its tokens. Empty: of tokens whose `kid` no other key has, too."""
    algorithm: Shared | Public
    """What it is used with, whatever a token says."""
    secret: SecretStr = SecretStr("")
    """For HS256, HS384, HS512: the shared secret, 32, 48 or 64 bytes at least."""
    base64: bool = False
    """Whether the secret is written in base64."""
    public_key: str = ""
    """For all others: the public key as a PEM text, best as `${file:/path.pem}`."""

    @model_validator(mode="after")
    def has_one(self) -> "JwtKey":
        shared, secret = self.algorithm.startswith("HS"), bool(self.secret.get_secret_value())
        if secret != shared or bool(self.public_key) == shared:
            raise ValueError("a key for HS256, HS384 and HS512 has a secret; all others have a public_key")
        return self


class JwtAuth(
    Bearer, name="jwt_auth", stage=Stage.AUTH, serves=frozenset({"http", "websocket"}), refuses=True
):
    """Identifies the caller by a signed token (JWT) of an issuer, and refuses everybody else with 401."""

    issuer: str = ""
    """What `iss` has to be. Without `keys` and `jwks`: where OpenID Connect discovery finds the keys."""
    jwks: WebUrl = ""
    """Where the keys of the issuer are (a JWK set)."""
    keys: tuple[JwtKey, ...] = ()
    """Keys that do not change: each with `algorithm`, `secret` or `public_key`, and `id`."""
    algorithms: Annotated[tuple[Public, ...], Field(min_length=1)] = ("RS256", "PS256", "ES256", "EdDSA")
    """What keys out of a set may be used with. A key without an `alg` of its own gets the first that fits."""
    require: tuple[str, ...] = ("exp",)
    """Claims that have to be there."""
    max_lifetime: Span | None = None
    """How long after its `iat` a token may expire at most. Not given: any time."""
    refresh: Span = 600.0
    """How often the keys are fetched again, beside the requests."""
    cooldown: Span = 10.0
    """A `kid` that nobody knows makes the keys be fetched at once, at most so often."""
    max_stale: Span = 86400.0
    """How long keys are used that cannot be fetched again."""
    timeout: Span = 3.0
    """How long the issuer may take to answer."""
    max_remembered: Annotated[int, Field(ge=0)] = 10_000
    """Tokens that were verified and are not verified again until they expire. 0: none."""

    @model_validator(mode="after")
    def has_keys(self) -> "JwtAuth":
        if not (self.keys or self.jwks or self.issuer):
            raise ValueError("say where the keys are: keys, jwks, or issuer")
        if not (self.keys or self.jwks or self.issuer.startswith(("http://", "https://"))):
            raise ValueError("an issuer that shall tell its keys is a URL")
        return self

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        try:
            from .tokens import Reader
        except ImportError:
            raise missing_extra("jwt_auth", "joserfc") from None
        refuse, time, refused = build.refuse(app), build.clock.time, self.refusals()
        find, enter = self.finder(), self.enterer()
        judge = self.judge(build.consumers, self.issuer, self.max_lifetime)
        fixed, source, reader = self.fixed(), self.source(build), Reader()
        remembered, needed = Remembered[Granted](self.max_remembered), self.require
        unknown_key = refused["unknown_key"]
        seen = 0

        def verify(token: bytes, now: float) -> Granted | Refusal:
            """What a token gives; `unknown_key`: the issuer may have a new one."""
            claims = reader.read(token, fixed)
            if source is not None and isinstance(claims, str) and claims != "malformed":
                claims = reader.read(token, source.keys)
            if isinstance(claims, str):
                return refused[claims]
            if not all(name in claims for name in needed):
                return refused["malformed"]
            return judge(claims, now)

        async def look_again(
            scope: Scope, receive: Receive, send: Send, token: bytes, source: "KeySource"
        ) -> None:
            outcome: Granted | Refusal = unknown_key
            if await source.ask():
                outcome = verify(token, time())
            if outcome is unknown_key and not source.known:
                outcome = NO_KEYS
            if isinstance(outcome, Refusal):
                await refuse(scope, receive, send, outcome)
            else:
                await app(enter(scope, outcome), receive, send)

        def jwt_auth(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            nonlocal seen
            token = find(scope)
            if isinstance(token, Refusal):
                return refuse(scope, receive, send, token)
            if source is not None and source.version != seen:
                # What was signed with a key that is gone is not good any more.
                seen = source.version
                remembered.clear()
            digest, now = sha256(token).digest(), time()
            granted = remembered.get(digest)
            if granted is None or now >= granted.until:
                outcome = verify(token, now)
                if isinstance(outcome, Refusal):
                    if outcome is unknown_key and source is not None:
                        return look_again(scope, receive, send, token, source)
                    return refuse(scope, receive, send, outcome)
                granted = outcome
                remembered.add(digest, granted)
            return app(enter(scope, granted), receive, send)

        return jwt_auth

    def refusals(self) -> dict[str, Refusal]:
        """What a token is refused for, before its claims count."""
        return {
            "malformed": self.invalid("bad_token", "This is no token, or one without what it needs."),
            "unfit": self.invalid("bad_token", "This kind of token is not for this."),
            "unknown_key": self.invalid("unknown_key", "The token is signed with a key that nobody knows."),
            "bad_signature": self.invalid("bad_signature", "The signature of the token is wrong."),
        }

    def fixed(self) -> "Keys":
        from .keys import Keys, decode_secret, pem_key, secret_key

        made, problems = [], []
        for index, key in enumerate(self.keys):
            try:
                if key.algorithm.startswith("HS"):
                    secret = decode_secret(key.secret.get_secret_value(), base64=key.base64)
                    made.append(secret_key(key.id, key.algorithm, secret))
                else:
                    made.append(pem_key(key.id, key.algorithm, key.public_key))
            except ValueError as error:
                problems.append(Problem(str(error), f"keys[{index}]"))
        if problems:
            raise ConfigError(problems)
        return Keys(made)

    def source(self, build: Build) -> "KeySource | None":
        """The keys of the issuer; all routes that ask for the same share them."""
        if not self.jwks and self.keys:
            return None
        from .source import KeySource, Place

        place = Place(
            self.jwks,
            self.issuer,
            self.algorithms,
            self.refresh,
            self.max_stale,
            self.cooldown,
            self.timeout,
        )
        return build.keep(
            place,
            lambda: KeySource(place, build.control, build.clock),
            run=KeySource.run,
            close=KeySource.aclose,
            shared=True,
        )
