"""Keys that verify tokens: each is pinned to one algorithm, whatever a token says."""

import hmac
import warnings
from base64 import b64decode, urlsafe_b64decode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

Verify = Callable[[bytes, bytes], bool]

HASHES = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}
SMALLEST = {"HS256": 32, "HS384": 48, "HS512": 64}
"""Bytes of a secret (RFC 7518 3.2)."""
RSA_BITS = 2048
MEMBERS = {"RSA": ("kty", "n", "e"), "EC": ("kty", "crv", "x", "y"), "OKP": ("kty", "crv", "x")}
"""What is taken of a key: the public part; a secret one is not even looked at."""
KINDS: dict[str, Any] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
CURVES = {
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "P-521": ("ES512",),
    "Ed25519": ("EdDSA", "Ed25519"),
    "Ed448": ("EdDSA", "Ed448"),
}


@dataclass(frozen=True, slots=True)
class Key:
    """Verifies signatures of one algorithm."""

    id: str
    algorithm: str
    verify: Verify
    mark: str
    """Tells two keys apart without showing them."""


def secret_key(identity: str, algorithm: str, secret: bytes) -> Key:
    """A shared secret. ValueError if it is too short, or something that others know."""
    if secret.lstrip().startswith((b"-----BEGIN", b"ssh-")):
        raise ValueError("a public key is no secret")
    if len(secret) < SMALLEST[algorithm]:
        raise ValueError(f"a secret for {algorithm} has at least {SMALLEST[algorithm]} bytes (RFC 7518 3.2)")
    name = HASHES[algorithm]

    def verify(signed: bytes, signature: bytes) -> bool:
        return hmac.compare_digest(hmac.digest(secret, signed, name), signature)

    return Key(identity, algorithm, verify, "")


def pem_key(identity: str, algorithm: str, pem: str) -> Key:
    """The public key in a PEM text. ValueError if it does not fit the algorithm."""
    kind = KINDS["RSA" if algorithm in RSA else "EC" if algorithm.startswith("ES") else "OKP"]
    try:
        return public_key(identity, algorithm, kind.import_key(pem).as_dict(private=False))
    except Exception as error:
        raise ValueError(
            f"no public key for {algorithm} in PEM, as in -----BEGIN PUBLIC KEY-----: {type(error).__name__}"
        ) from None


def public_key(identity: str, algorithm: str, members: Mapping[str, Any]) -> Key:
    """A public key out of the members of a JWK. ValueError if it is unfit or weak."""
    kty = str(members.get("kty"))
    if algorithm not in fitting(members):
        raise ValueError(f"a key of the kind {kty!r} does not fit {algorithm}")
    if kty == "RSA" and (bits(str(members.get("n"))) < RSA_BITS or bits(str(members.get("e"))) < 2):
        raise ValueError(f"an RSA key has at least {RSA_BITS} bits")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        key = KINDS[kty].import_key({name: str(members[name]) for name in MEMBERS[kty]})
        key.get_op_key("verify")
    check: Any = JWSRegistry.algorithms[algorithm].verify

    def verify(signed: bytes, signature: bytes) -> bool:
        try:
            return bool(check(signed, signature, key))
        except Exception:
            # Whatever a library says about a signature that makes no sense: it does not verify.
            return False

    return Key(identity, algorithm, verify, key.thumbprint())


def fitting(members: Mapping[str, Any]) -> tuple[str, ...]:
    """The algorithms that a key can be used with. A secret among public keys is none."""
    kty = members.get("kty")
    if kty == "RSA":
        return RSA
    return CURVES.get(str(members.get("crv")), ()) if kty in ("EC", "OKP") else ()


def bits(number: str) -> int:
    """How many bits a number in base64url has."""
    return int.from_bytes(urlsafe_b64decode(number + "=" * (-len(number) % 4))).bit_length()


def usable(jwk: object, algorithms: Iterable[str]) -> Key | None:
    """A key of a set, pinned to its own `alg` or to the first allowed one that fits; None: not for us."""
    if not isinstance(jwk, dict) or jwk.get("use", "sig") != "sig":
        return None
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    fit, own, identity = fitting(jwk), jwk.get("alg"), jwk.get("kid", "")
    allowed = [each for each in algorithms if each in fit and own in (None, each)]
    if not allowed or not isinstance(identity, str):
        return None
    try:
        return public_key(identity, allowed[0], jwk)
    except Exception:
        return None


class Keys:
    """Keys by their id."""

    __slots__ = ("_by_id", "every")

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self.every = tuple(keys)
        self._by_id: dict[str, tuple[Key, ...]] = {}
        for key in self.every:
            self._by_id[key.id] = (*self._by_id.get(key.id, ()), key)

    def called(self, identity: str | None) -> tuple[Key, ...]:
        """The keys that may have signed a token: those of its `kid`, else those without one; all without."""
        if identity is None:
            return self.every
        return self._by_id.get(identity) or self._by_id.get("", ())

    def marks(self) -> frozenset[tuple[str, str, str]]:
        return frozenset((key.id, key.algorithm, key.mark) for key in self.every)


def decode_secret(text: str, *, base64: bool) -> bytes:
    """The bytes of a secret as a file has it."""
    if not base64:
        return text.encode()
    padded = text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4)
    return b64decode(padded, validate=True)
