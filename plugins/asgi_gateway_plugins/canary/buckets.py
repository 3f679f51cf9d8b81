"""Buckets and variants of callers: the same in every process, after every restart and reload."""

from collections.abc import Sequence
from functools import partial
from hashlib import blake2b
from math import log
from os import urandom
from re import compile as pattern
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from asgi_gateway.asgi import Message, Scope, cookie
from asgi_gateway.exchange import Exchange

from ..caller import Tell

BUCKETS = 10_000
COOKIE = pattern(rb"[A-Za-z0-9._-]{1,128}")


def read_percent(percent: float) -> float:
    if round(percent, 2) != percent:
        raise ValueError(f"{percent} has more than two decimals")
    return percent


Percent = Annotated[float, Field(ge=0, le=100), AfterValidator(read_percent)]
"""Two decimals: a whole number of buckets."""


def bucket(salt: bytes, caller: bytes) -> int:
    """0 to 9999, the same in every process and after every restart."""
    return int.from_bytes(blake2b(caller, key=salt, digest_size=8).digest()) % BUCKETS


def share(dial: Any) -> int:
    """How many of the buckets are the canary's; rounded, since 0.07 * 100 is more than 7."""
    percent: float = dial.value
    return round(percent * (BUCKETS // 100))


class Draw:
    """Which of several variants a caller has. Weighted rendezvous hashing: a weight that grows only moves
    callers to its variant, one that shrinks only away from it.
    """

    def __init__(self, salt: bytes, weights: Sequence[tuple[str, int]]) -> None:
        # Independent of the bucket: a growing percentage brings callers in, and moves none between variants.
        keys = [(blake2b(name.encode(), key=salt).digest(), weight) for name, weight in weights if weight]
        self._weights = tuple(keys)
        self._places = tuple(place for place, (_, weight) in enumerate(weights) if weight)

    def __call__(self, caller: bytes) -> int:
        """The place of a variant."""
        scores = [log(even(key, caller)) / weight for key, weight in self._weights]
        return self._places[scores.index(max(scores))]


def even(key: bytes, caller: bytes) -> float:
    """Evenly spread between 0 and 1, both excluded."""
    number = int.from_bytes(blake2b(caller, key=key, digest_size=6).digest())
    return (number + 0.5) / (1 << 48)


def by_cookie(name: str, age: float) -> Tell:
    """Tell callers apart by a cookie, and issue it to those who have none."""
    key = name.encode()
    attributes = b"; Path=/; Max-Age=%d; HttpOnly; SameSite=Lax" % age

    def tell(scope: Scope, exchange: Exchange) -> str:
        caller = cookie(scope["headers"], key)
        if not COOKIE.fullmatch(caller):
            if scope["type"] != "http":
                return ""
            caller = urandom(16).hex().encode()
            secure = b"; Secure" if exchange.scheme == "https" else b""
            exchange.on_start(partial(issue, key + b"=" + caller + attributes + secure))
        return caller.decode()

    return tell


def issue(line: bytes, exchange: Exchange, message: Message) -> None:
    message["headers"].append((b"set-cookie", line))
