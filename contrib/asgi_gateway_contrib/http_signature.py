"""HTTP Message Signatures (RFC 9421): the caller signs the parts of a request that it names."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send
from asgi_gateway.component import Build, Refusal
from asgi_gateway.config.model import Model
from asgi_gateway.consumers import Consumer
from asgi_gateway.errors import ConfigError, Problem
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.replay import Replay
from asgi_gateway.stage import Stage
from asgi_gateway.store import StoreError
from asgi_gateway.units import Size, Span, Time
from asgi_gateway_plugins.authentication import (
    CONSUMERS_AWAY,
    Authentication,
    fields_of,
    missing_extra,
    principals,
)
from asgi_gateway_plugins.fields import TOKEN
from asgi_gateway_plugins.nonces import NONCES_AWAY, Nonces, OnError
from asgi_gateway_plugins.signatures import SignatureRefusals

if TYPE_CHECKING:
    from .message_signatures import Input, Terms, Verifier

HMAC = "hmac-sha256"
LONGEST = 2048
"""Bytes of Signature-Input, and of Signature."""
LONGEST_NONCE = 128
MOST_COMPONENTS = 64
DERIVED = ("@method", "@authority", "@scheme", "@target-uri", "@request-target", "@path", "@query")
"""What a request has, RFC 9421 2.2."""

Algorithm = Literal["ed25519", "ecdsa-p256-sha256", "ecdsa-p384-sha384", "rsa-pss-sha512", "rsa-v1_5-sha256"]
Known = tuple["Verifier", Consumer]
Find = Callable[[str], Known | None]


def read_part(name: str) -> str:
    if name.startswith("@") and name not in DERIVED:
        raise ValueError(f"{name!r} is none of {', '.join(DERIVED)}")
    return name.lower()


Part = Annotated[str, Field(pattern=f"^@?{TOKEN}$"), AfterValidator(read_part)]
"""A part of a request: derived, or the name of a field."""


class PublicKey(Model):
    """A key with which a caller's signatures are checked, and the one algorithm that it is for."""

    id: Annotated[str, Field(min_length=1)]
    """The `keyid` of its signatures."""
    algorithm: Algorithm
    """What it is used with, whatever a signature says."""
    public_key: Annotated[str, Field(min_length=1)]
    """The key as a PEM text, best as `${file:/path.pem}`."""
    consumer: Annotated[str, Field(min_length=1)]
    """Whose key it is."""


class HttpSignature(
    Authentication,
    name="http_signature",
    stage=Stage.AUTH,
    serves=frozenset({"http", "websocket"}),
    refuses=True,
):
    """Identifies the caller by an HTTP message signature (RFC 9421), and refuses everybody else with 401."""

    keys: tuple[PublicKey, ...] = ()
    """Public keys: `id`, `algorithm`, `public_key` and `consumer`. Secrets are the `hmac` of consumers."""
    components: Annotated[tuple[Part, ...], Field(min_length=1)] = (
        "@method",
        "@authority",
        "@path",
        "@query",
    )
    """What has to be signed; a caller may sign more. A body has to be, too, by its Content-Digest."""
    tag: Annotated[str, Field(pattern=r"^[A-Za-z0-9 ._~:/-]*$")] = ""
    """The `tag` that a signature has to have; of several ones, that one counts. Empty: any, but only one."""
    max_age: Span = 300.0
    """How old a signature may be."""
    skew: Time = 5.0
    """How far the clock of the caller may be off."""
    nonce: bool = True
    """Whether a signature has to have a nonce. One that is there is good once in any case."""
    max_nonces: Annotated[int, Field(ge=1)] = 100_000
    """Nonces that are remembered in memory for each key; 503 while there are more."""
    on_error: OnError = "closed"
    """While a shared store is away: `closed`, 503; `local`, each worker looks at those that it saw itself."""
    max_body: Annotated[Size, Field(ge=0)] = 1024 * 1024
    """The longest body that is read to be checked; 413 past it."""

    @field_validator("keys")
    @classmethod
    def are_different(cls, keys: tuple[PublicKey, ...]) -> tuple[PublicKey, ...]:
        if len({key.id for key in keys}) != len(keys):
            raise ValueError("two keys have the same id")
        return keys

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        try:
            from .message_signatures import (
                Digest,
                HTTPMessageSignaturesException,
                Request,
                Stale,
                Terms,
                Verifier,
            )
        except ImportError:
            raise missing_extra("http_signature", "http-message-signatures") from None
        refuse, identify, principal = build.refuse(app), self.identifier(), principals("http_signature")
        consumers, asks = build.consumers, build.consumers.records is not None
        terms = Terms(self.components, self.tag, self.max_age, self.skew, build.clock.time)
        find, choose = self.finder(build, terms), self.chooser()
        refusals, needs_nonce, max_body = self.refusals(), self.nonce, self.max_body
        nonces = Nonces.open(
            build,
            self.name,
            most=self.max_nonces,
            seconds=self.max_age + 2 * self.skew + 1,
            on_error=self.on_error,
        )

        async def http_signature(scope: Scope, receive: Receive, send: Send) -> None:
            exchange: Exchange = scope[EXCHANGE]
            said = choose(scope)
            if isinstance(said, Refusal):
                await refuse(scope, receive, send, said)
                return
            if len(said.nonce) > LONGEST_NONCE or (needs_nonce and not said.nonce):
                await refuse(scope, receive, send, refusals.no_nonce)
                return
            known = find(said.key)
            if known is None and asks:
                try:
                    stored = await consumers.ask_secret(said.key)
                except StoreError:
                    await refuse(scope, receive, send, CONSUMERS_AWAY)
                    return
                known = stored and (Verifier(said.key, HMAC, stored[1], terms), stored[0])
            if known is None:
                await refuse(scope, receive, send, refusals.unknown)
                return
            verifier, owner = known
            try:
                covered = verifier.covered(Request.of(scope, exchange))
            except HTTPMessageSignaturesException as error:
                stale = isinstance(error, Stale)
                await refuse(scope, receive, send, refusals.stale if stale else refusals.wrong)
                return
            digest = Digest.of(covered)
            if exchange.has_body and scope["type"] == "http":
                replay = Replay.of(exchange, receive)
                # Of a body that nobody signed not a byte is good.
                whole = await replay.read(max_body if digest else 0, digest.update if digest else None)
                receive = replay.reader()
                if not whole:
                    await refuse(scope, receive, send, refusals.too_large if digest else refusals.no_digest)
                    return
            if digest is not None and not digest.fits():
                await refuse(scope, receive, send, refusals.wrong_digest)
                return
            if said.nonce:
                # Only now: nobody else can use up the nonces of a caller.
                try:
                    fresh = await nonces.add(said.key, said.nonce.encode())
                except StoreError:
                    await refuse(scope, receive, send, NONCES_AWAY)
                    return
                if not fresh:
                    await refuse(scope, receive, send, refusals.full if fresh is None else refusals.replayed)
                    return
            await app(identify(scope, principal(owner)), receive, send)

        return http_signature

    def chooser(self) -> "Callable[[Scope], Input | Refusal]":
        """The function that finds the one signature of a request that counts."""
        from .message_signatures import read_inputs

        refusals, tag, required = self.refusals(), self.tag, frozenset(self.components)

        def choose(scope: Scope) -> "Input | Refusal":
            inputs, signatures = fields_of(scope, b"signature-input"), fields_of(scope, b"signature")
            if not inputs and not signatures:
                return refusals.missing
            # RFC 9421 4.1: several lines are one dictionary.
            value = b", ".join(inputs)
            if len(value) > LONGEST or sum(map(len, signatures)) > LONGEST:
                return refusals.malformed
            try:
                found = read_inputs(value, tag)
            except ValueError:
                return refusals.malformed
            if len(found) != 1:
                return refusals.several if found else refusals.missing
            said = found[0]
            if len(said.components) > MOST_COMPONENTS:
                return refusals.malformed
            return said if required.issubset(said.components) else refusals.unsigned

        return choose

    def finder(self, build: Build, terms: "Terms") -> Find:
        """The function that says who signs with a key of this id, and what checks it."""
        from .message_signatures import Verifier, read_key

        known: dict[str, Known] = {}
        problems = []
        for index, key in enumerate(self.keys):
            consumer = build.consumers.get(key.consumer)
            if consumer is None:
                problems.append(Problem(f"no consumer is called {key.consumer!r}", f"keys[{index}].consumer"))
            elif build.consumers.secret(key.id) is not None:
                problems.append(Problem(f"a secret has the id {key.id!r}, too", f"keys[{index}].id"))
            else:
                try:
                    public = read_key(key.algorithm, key.public_key)
                except ValueError as error:
                    problems.append(Problem(str(error), f"keys[{index}].public_key"))
                else:
                    known[key.id] = (Verifier(key.id, key.algorithm, public, terms), consumer)
        if problems:
            raise ConfigError(problems)
        secret = build.consumers.secret

        def find(identity: str) -> Known | None:
            found = known.get(identity)
            if found is None and (shared := secret(identity)) is not None:
                return Verifier(identity, HMAC, shared[1], terms), shared[0]
            return found

        return find

    def refusals(self) -> "Refusals":
        return Refusals(self.components, self.tag)


class Refusals(SignatureRefusals):
    """Why a signature does not count."""

    def __init__(self, components: tuple[str, ...], tag: str) -> None:
        # RFC 9421 5.1: what a client has to sign.
        wanted = " ".join(f'"{name}"' for name in components)
        about = f"sig=({wanted});created" + (f';tag="{tag}"' if tag else "")
        super().__init__(((b"www-authenticate", b"Signature"), (b"accept-signature", about.encode())))
        self.several = self.refusal("several_signatures", "There is more than one signature.")
        self.unsigned = self.refusal("unsigned_component", "Something that has to be signed is not.")
        self.no_nonce = self.refusal("no_nonce", "The signature has no nonce of 1 to 128 characters.")
        self.unknown = self.refusal("unknown_key", "Nobody has a key of this id.")
        self.stale = self.refusal(
            "stale_signature", "The signature was not created just now, or has expired."
        )
        self.no_digest = self.refusal("unsigned_body", "The body has to be signed by its Content-Digest.")
        self.wrong_digest = self.refusal("wrong_digest", "The body does not fit its Content-Digest.")
