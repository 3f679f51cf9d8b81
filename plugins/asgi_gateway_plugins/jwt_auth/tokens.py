"""JSON Web Tokens in their compact form (RFC 7515, RFC 7519): read strictly, verified by one key."""

import re
from binascii import a2b_base64
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from .keys import Keys

SHAPE = re.compile(rb"([\w-]+)\.([\w-]+)\.([\w-]+)", re.ASCII)
URLSAFE = bytes.maketrans(b"-_", b"+/")
PADDING = (b"", b"===", b"==", b"=")
TYPES = frozenset({"", "jwt", "at+jwt", "application/jwt", "application/at+jwt"})
"""Kinds of tokens that let a caller in; one that ends a session, for example, does not (RFC 8725 3.11)."""
TRIED = 8
"""Keys that are tried for a token which does not name its own."""
HEADS = 64
"""Headers that are held: all tokens of one key have the same."""

Fault = Literal["malformed", "unfit", "unknown_key", "bad_signature"]


class Head(NamedTuple):
    """What the header of a token says that we look at."""

    algorithm: str
    key: str | None


class Reader:
    """Verifies tokens, and reads their claims."""

    __slots__ = ("_heads",)

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}

    def read(self, token: bytes, keys: Keys) -> Mapping[str, Any] | Fault:
        """The claims of a token that one of the keys has signed."""
        found = SHAPE.fullmatch(token)
        if found is None:
            return "malformed"
        first, second, third = found.groups()
        head = self._heads.get(first) or self._head(first)
        if isinstance(head, str):
            return head
        candidates = keys.called(head.key)
        if not candidates:
            return "unknown_key"
        signature, signed = decoded(third), token[: found.end(2)]
        # The algorithm is that of the key: what the token says has to agree, and decides nothing.
        fit = [key for key in candidates if key.algorithm == head.algorithm]
        if not any(key.verify(signed, signature) for key in fit[:TRIED]):
            return "bad_signature"
        claims = parsed(second)
        return claims if isinstance(claims, dict) else "malformed"

    def _head(self, segment: bytes) -> Head | Fault:
        header = parsed(segment)
        if not isinstance(header, dict):
            return "malformed"
        algorithm, key, kind = header.get("alg"), header.get("kid"), header.get("typ", "")
        if not isinstance(algorithm, str) or not isinstance(kind, str) or not isinstance(key, str | None):
            return "malformed"
        # Extensions that have to be understood: we know none. jku, jwk, x5u and x5c are not even looked at.
        if "crit" in header or kind.lower() not in TYPES:
            return "unfit"
        head = Head(algorithm, key)
        if len(self._heads) < HEADS:
            self._heads[segment] = head
        return head


def decoded(segment: bytes) -> bytes:
    try:
        return a2b_base64(segment.translate(URLSAFE) + PADDING[len(segment) % 4])
    except ValueError:
        return b""


def parsed(segment: bytes) -> Any:
    """The JSON in a segment; None if there is none."""
    try:
        return msgspec.json.decode(decoded(segment))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
