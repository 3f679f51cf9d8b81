"""How a caller learns where it stands: the RateLimit fields of the IETF draft, new and old."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from asgi_gateway.asgi import Header, Message
from asgi_gateway.exchange import Exchange
from asgi_gateway.units import Rate

Standing = Sequence[tuple[int, int]]
"""For each rate: requests left, and seconds until there are more."""
Kind = Literal["draft", "legacy", "both", "none"]
Tell = Callable[[Standing, Exchange, Message], None]

OLD = (b"ratelimit-limit", b"ratelimit-remaining", b"ratelimit-reset")


class Policies:
    """What never changes about some rates: their names, and the fields that tell them."""

    __slots__ = ("amounts", "line", "names")

    def __init__(self, policies: Sequence[tuple[str, int, int]]) -> None:
        """Each with name, amount and seconds."""
        self.names = [f'"{name}"'.encode() for name, _, _ in policies]
        self.amounts = [amount for _, amount, _ in policies]
        self.line = b", ".join(
            b'"%s";q=%d;w=%d' % (name.encode(), amount, seconds) for name, amount, seconds in policies
        )

    @classmethod
    def of(cls, rates: Sequence[Rate]) -> "Policies":
        return cls([(str(rate).partition("/")[2], rate.amount, rate.period) for rate in rates])


def teller(policies: Policies, kind: Kind) -> Tell | None:
    """The function that adds the fields to a head, for `exchange.on_start`."""
    if kind == "none":
        return None
    if kind == "draft" and len(policies.names) == 1:
        return partial(announce_one, (b"ratelimit-policy", policies.line), policies.names[0] + b";r=%d;t=%d")
    return partial(announce, policies, kind)


def announce_one(
    policy: Header, now: bytes, standing: Standing, exchange: Exchange, message: Message
) -> None:
    """The same as `announce` for one rate, as most have."""
    message["headers"] += (policy, (b"ratelimit", now % standing[0]))


def announce(
    policies: Policies, kind: Kind, standing: Standing, exchange: Exchange, message: Message
) -> None:
    """Add the fields to a head."""
    if kind != "legacy":
        add_draft(policies, standing, message)
    if kind != "draft":
        set_legacy(policies, standing, message)


def add_draft(policies: Policies, standing: Standing, message: Message) -> None:
    """RateLimit-Policy and RateLimit, as in draft-ietf-httpapi-ratelimit-headers from -08 on."""
    now = [b"%s;r=%d;t=%d" % (name, *left) for name, left in zip(policies.names, standing, strict=True)]
    message["headers"] += [(b"ratelimit-policy", policies.line), (b"ratelimit", b", ".join(now))]


def set_legacy(policies: Policies, standing: Standing, message: Message) -> None:
    """RateLimit-Limit, -Remaining and -Reset as in -06, which has room for one rate: the tightest."""
    rates = zip(policies.amounts, standing, strict=True)
    amount, (remaining, reset) = min(rates, key=lambda rate: rate[1][0])
    fields = zip(OLD, (amount, remaining, reset), strict=True)
    kept = [field for field in message["headers"] if field[0] not in OLD]
    message["headers"] = [*kept, *((name, b"%d" % number) for name, number in fields)]
