"""Signed requests: who has a secret of a consumer signs method, path, query, fields and body with it."""

import hmac
import re
from binascii import a2b_base64
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Literal

from pydantic import Field

from asgi_gateway.asgi import ASGIApp, Headers, Receive, Scope, Send
from asgi_gateway.component import Build, Refusal
from asgi_gateway.config.model import ImportPath
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.importing import find
from asgi_gateway.replay import Replay
from asgi_gateway.stage import Stage
from asgi_gateway.store import StoreError
from asgi_gateway.units import Size, Span

from .authentication import CONSUMERS_AWAY, Authentication, Realm, fields_of, principals
from .fields import HeaderName
from .nonces import NONCES_AWAY, Nonces, OnError
from .signatures import SignatureRefusals

PARAMETER = rb'([a-z]+)="([^"\\]*)"'
LIST = re.compile(rb"%b(?:[ \t]*,[ \t]*%b)*" % (PARAMETER, PARAMETER))
PARAMETERS = re.compile(PARAMETER)
NAMES = frozenset({b"id", b"time", b"nonce", b"headers", b"signature"})
TIME = re.compile(rb"[0-9]{1,12}")
NONCE = re.compile(rb"[A-Za-z0-9_-]{8,128}")
LONGEST = 4096
MOST_HEADERS = 64
NO_BODY = sha256().hexdigest().encode()


@dataclass(frozen=True, slots=True)
class Signed:
    """What a request says that is signed. All as it was sent, byte for byte."""

    scheme: bytes
    id: str
    time: bytes
    nonce: bytes
    method: bytes
    path: bytes
    query: bytes
    headers: Headers
    """Those that are signed, in the order of the signature."""
    digest: bytes
    """SHA-256 of the body in hex; `-` where the body is not signed."""


def canonical(signed: Signed) -> bytes:
    """The text that is signed: a line for each part."""
    lines = [signed.scheme, signed.time, signed.nonce, signed.method, signed.path, signed.query]
    lines += [b"%b:%b" % (name, value.strip()) for name, value in signed.headers]
    return b"\n".join([*lines, signed.digest])


class Signature(
    Authentication, name="signature", stage=Stage.AUTH, serves=frozenset({"http", "websocket"}), refuses=True
):
    """Identifies the caller by a signature with a secret (HMAC), and refuses everybody else with 401."""

    algorithm: Literal["sha256", "sha512"] = "sha256"
    """The hash of the HMAC; the scheme is HMAC-SHA256 or HMAC-SHA512."""
    headers: tuple[HeaderName, ...] = ("host",)
    """Fields that have to be signed. A caller may sign more."""
    skew: Span = 300.0
    """How far the time of a signature may be from now."""
    body: bool = True
    """Whether the body is signed. It is read before the request goes upstream then."""
    max_body: Annotated[Size, Field(ge=0)] = 1024 * 1024
    """The longest body that is read for that; 413 past it."""
    max_nonces: Annotated[int, Field(ge=1)] = 100_000
    """Nonces that are remembered in memory for each secret; 503 while there are more."""
    on_error: OnError = "closed"
    """While a shared store is away: `closed`, 503; `local`, each worker looks at those that it saw itself."""
    canonical: ImportPath = ""
    """`package.module:function`, which makes the text that is signed out of a `Signed`. Empty: as below."""
    hide: bool = True
    """Whether the Authorization field is removed from the request that goes upstream."""
    realm: Realm = "gateway"
    """What the challenge calls this place."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        refuse, consumers, time = build.refuse(app), build.consumers, build.clock.time
        asks = consumers.records is not None
        scheme = f"HMAC-{self.algorithm.upper()}".encode()
        text = canonical if not self.canonical else self.own_text()
        identify = self.identifier(*(["authorization"] if self.hide else []))
        principal = principals("signature")
        required = frozenset(name.encode() for name in self.headers)
        refusals = Refusals(scheme.decode(), self.realm, self.headers)
        nonces = Nonces.open(
            build, self.name, most=self.max_nonces, seconds=2 * self.skew + 1, on_error=self.on_error
        )
        skew, algorithm, signs_body, max_body = self.skew, self.algorithm, self.body, self.max_body

        async def signature(scope: Scope, receive: Receive, send: Send) -> None:
            exchange: Exchange = scope[EXCHANGE]
            said = read(fields_of(scope, b"authorization"), scheme, refusals)
            if isinstance(said, Refusal):
                await refuse(scope, receive, send, said)
                return
            identity = said[b"id"].decode("latin-1")
            owner = consumers.secret(identity)
            if owner is None and asks:
                try:
                    owner = await consumers.ask_secret(identity)
                except StoreError:
                    await refuse(scope, receive, send, CONSUMERS_AWAY)
                    return
            if owner is None:
                await refuse(scope, receive, send, refusals.unknown)
                return
            if abs(time() - int(said[b"time"])) > skew:
                await refuse(scope, receive, send, refusals.skewed)
                return
            headers = signed_headers(scope, said[b"headers"].split(), required)
            if headers is None:
                await refuse(scope, receive, send, refusals.unsigned)
                return
            digest = NO_BODY if signs_body else b"-"
            if signs_body and exchange.has_body and scope["type"] == "http":
                hashed, replay = sha256(), Replay.of(exchange, receive)
                whole = await replay.read(max_body, hashed.update)
                receive = replay.reader()
                if not whole:
                    await refuse(scope, receive, send, refusals.too_large)
                    return
                digest = hashed.hexdigest().encode()
            signed = Signed(
                scheme,
                identity,
                said[b"time"],
                said[b"nonce"],
                scope.get("method", "GET").encode(),
                scope["raw_path"].partition(b"?")[0],
                scope["query_string"],
                headers,
                digest,
            )
            wanted = hmac.digest(owner[1], text(signed), algorithm)
            if not hmac.compare_digest(wanted, said[b"signature"]):
                await refuse(scope, receive, send, refusals.wrong)
                return
            # Only now: nobody else can use up the nonces of a caller.
            try:
                fresh = await nonces.add(identity, said[b"nonce"])
            except StoreError:
                await refuse(scope, receive, send, NONCES_AWAY)
                return
            if not fresh:
                await refuse(scope, receive, send, refusals.full if fresh is None else refusals.replayed)
                return
            await app(identify(scope, principal(owner[0])), receive, send)

        return signature

    def own_text(self) -> Callable[[Signed], bytes]:
        function: Callable[[Signed], bytes] = find(self.canonical, "a function that makes a text")
        return function


class Refusals(SignatureRefusals):
    """Why a signature does not count."""

    def __init__(self, scheme: str, realm: str, headers: tuple[str, ...]) -> None:
        text = f'{scheme} realm="{realm}", headers="{" ".join(headers)}"'
        super().__init__(((b"www-authenticate", text.encode()),))
        self.several = self.refusal("several_signatures", "There is more than one Authorization.")
        self.unknown = self.refusal("unknown_id", "Nobody has a secret of this id.")
        self.skewed = self.refusal("clock_skew", "The time of the signature is too far from now.")
        self.unsigned = self.refusal("unsigned_header", "A field to be signed is not, or is not there once.")


def read(fields: list[bytes], scheme: bytes, refusals: Refusals) -> dict[bytes, bytes] | Refusal:
    """What the one Authorization field says; the signature in it decoded."""
    if len(fields) > 1:
        return refusals.several
    kind, _, rest = fields[0].partition(b" ") if fields else (b"", b"", b"")
    if kind.upper() != scheme:
        return refusals.missing
    rest = rest.strip()
    if len(rest) > LONGEST or not LIST.fullmatch(rest):
        return refusals.malformed
    pairs = PARAMETERS.findall(rest)
    said = dict(pairs)
    if len(said) != len(pairs) or said.keys() != NAMES:
        return refusals.malformed
    if not TIME.fullmatch(said[b"time"]) or not NONCE.fullmatch(said[b"nonce"]):
        return refusals.malformed
    try:
        said[b"signature"] = a2b_base64(said[b"signature"], strict_mode=True)
    except ValueError:
        return refusals.malformed
    return said


def signed_headers(scope: Scope, names: list[bytes], required: frozenset[bytes]) -> Headers | None:
    """The fields that are signed; None if one is missing, is there twice, or has to be signed and is not."""
    if len(names) > MOST_HEADERS or len(set(names)) != len(names) or not required.issubset(names):
        return None
    wanted = set(names)
    found = [pair for pair in scope["headers"] if pair[0] in wanted]
    values = dict(found)
    if len(found) != len(names) or len(values) != len(names):
        return None
    return [(name, values[name]) for name in names]
