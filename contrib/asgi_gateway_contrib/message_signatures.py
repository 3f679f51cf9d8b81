"""The face of the library for RFC 9421: what a request says that is signed, and whether a key signed it."""

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, cast

import http_sf
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from http_message_signatures import (
    HTTPMessageSignaturesException,
    HTTPMessageVerifier,
    HTTPSignatureComponentResolver,
    HTTPSignatureKeyResolver,
    InvalidSignature,
    algorithms,
)

from asgi_gateway.asgi import Scope
from asgi_gateway.exchange import Exchange

ALGORITHMS: dict[str, Any] = {
    "hmac-sha256": algorithms.HMAC_SHA256,
    "ed25519": algorithms.ED25519,
    "ecdsa-p256-sha256": algorithms.ECDSA_P256_SHA256,
    "ecdsa-p384-sha384": algorithms.ECDSA_P384_SHA384,
    "rsa-pss-sha512": algorithms.RSA_PSS_SHA512,
    "rsa-v1_5-sha256": algorithms.RSA_V1_5_SHA256,
}
RSA_BITS = range(2048, 8193)
"""Shorter ones can be broken, longer ones are only slow."""
HASHES = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}
"""Those of RFC 9530 that are not broken; others are not looked at."""


class Stale(InvalidSignature):
    """Its time is over, or has not come."""


def read_key(algorithm: str, pem: str) -> Any:
    """The key in a PEM text. ValueError if it is none, or none for this algorithm."""
    try:
        key = load_pem_public_key(pem.encode())
        ALGORITHMS[algorithm](public_key=key)
    except Exception as error:
        raise ValueError(f"no public key for {algorithm}: {type(error).__name__}") from None
    if isinstance(key, RSAPublicKey) and key.key_size not in RSA_BITS:
        raise ValueError(f"an RSA key has {RSA_BITS[0]} to {RSA_BITS[-1]} bits, not {key.key_size}")
    return key


@dataclass(frozen=True, slots=True)
class Input:
    """What one signature says of itself in Signature-Input. Nobody knows yet whether it is true."""

    key: str
    nonce: str
    components: tuple[str, ...]
    """The names of what is signed, without their parameters."""


def dictionary(value: bytes) -> dict[str, tuple[Any, dict[str, Any]]]:
    """The members of a structured field (RFC 9651), each with its parameters. ValueError if it is none."""
    return cast("dict[str, tuple[Any, dict[str, Any]]]", http_sf.parse(value, tltype="dictionary"))


def read_inputs(value: bytes, tag: str) -> list[Input]:
    """Every signature with this tag; with any, if it is empty. ValueError if it cannot be read."""
    found = []
    for member, parameters in dictionary(value).values():
        if tag and parameters.get("tag") != tag:
            continue
        key, nonce = parameters.get("keyid"), parameters.get("nonce", "")
        if not isinstance(member, list) or not isinstance(key, str) or not isinstance(nonce, str):
            raise ValueError("not a signature that names its key")
        found.append(Input(key, nonce, tuple(str(name) for name, _ in member)))
    return found


class Fields:
    """Header fields as the library wants to see them: texts, one pair for each line."""

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        self._pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs]

    def items(self) -> list[tuple[str, str]]:
        return self._pairs


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the library wants to see it."""

    method: str
    url: str
    """Without path and query."""
    path: str
    query: str | None
    headers: Fields

    @classmethod
    def of(cls, scope: Scope, exchange: Exchange) -> "Request":
        path, query = scope["raw_path"].partition(b"?")[0], scope["query_string"]
        return cls(
            scope.get("method", "GET"),
            f"{exchange.scheme}://{exchange.authority.decode('latin-1')}",
            path.decode("latin-1"),
            query.decode("latin-1") or None,
            Fields(scope["headers"]),
        )


class Components(HTTPSignatureComponentResolver):
    """The values of what is signed: path and query byte for byte, also where they hold `[` or `|`."""

    def __init__(self, message: Request) -> None:
        super().__init__(message)  # type: ignore[no-untyped-call]
        self.url_parts = replace(self.url_parts, path=message.path, query=message.query)


class Resolver(HTTPSignatureKeyResolver):
    """Knows one key."""

    def __init__(self, identity: str, key: Any) -> None:
        self._identity = identity
        self._key = key

    def resolve_public_key(self, key_id: str) -> Any:
        return self._key if key_id == self._identity else None


@dataclass(frozen=True, slots=True)
class Terms:
    """When a signature counts."""

    components: tuple[str, ...]
    tag: str
    max_age: float
    skew: float
    time: Callable[[], float]


class Verifier(HTTPMessageVerifier):
    """Checks what one key signed, with the one algorithm that it is for, by the clock of the gateway."""

    def __init__(self, identity: str, algorithm: str, key: Any, terms: Terms) -> None:
        super().__init__(
            signature_algorithm=ALGORITHMS[algorithm],
            key_resolver=Resolver(identity, key),
            component_resolver_class=Components,
        )
        self._terms = terms

    def validate_created_and_expires(self, sig_input: Any, max_age: timedelta | None = None) -> None:
        terms, parameters = self._terms, sig_input.params
        now, created, expires = terms.time(), parameters.get("created"), parameters.get("expires")
        if type(created) is not int or not now - terms.max_age - terms.skew <= created <= now + terms.skew:
            raise Stale("not created now")
        if expires is not None and (type(expires) is not int or expires < now - terms.skew):
            raise Stale("expired")

    def covered(self, message: Request) -> Mapping[str, str]:
        """What is signed. Raises HTTPMessageSignaturesException."""
        terms = self._terms
        results = self.verify(message, expect_tag=terms.tag or None, require_components=terms.components)
        if len(results) != 1:
            raise InvalidSignature("not one signature")
        return results[0].covered_components


class Digest:
    """A Content-Digest (RFC 9530) that was signed, for a body that comes in pieces."""

    def __init__(self, wanted: Mapping[str, bytes]) -> None:
        self._wanted = [(HASHES[name](), digest) for name, digest in wanted.items()]

    @classmethod
    def of(cls, covered: Mapping[str, str]) -> "Digest | None":
        """The one among what is signed; None if there is none that can be checked."""
        value = covered.get('"content-digest"') or covered.get('"content-digest";sf')
        if value is None:
            return None
        try:
            members = dictionary(value.encode())
        except ValueError:
            return None
        known = {name: member for name, (member, _) in members.items() if name in HASHES}
        return cls(known) if known and all(isinstance(each, bytes) for each in known.values()) else None

    def update(self, piece: bytes) -> None:
        for hashed, _ in self._wanted:
            hashed.update(piece)

    def fits(self) -> bool:
        return all(hmac.compare_digest(hashed.digest(), digest) for hashed, digest in self._wanted)


__all__ = [
    "Digest",
    "HTTPMessageSignaturesException",
    "Input",
    "Request",
    "Stale",
    "Terms",
    "Verifier",
    "read_inputs",
    "read_key",
]
