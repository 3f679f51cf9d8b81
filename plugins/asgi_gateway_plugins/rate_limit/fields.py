"""How a caller learns where it stands: the RateLimit fields of the IETF draft, new and old."""

from typing import Literal

from asgi_gateway.asgi import Message
from asgi_gateway.exchange import Exchange
from asgi_gateway.units import Rate

Standing = list[tuple[int, int]]
"""For each rate: requests left, and seconds until there are more."""
Kind = Literal["draft", "legacy", "both", "none"]

OLD = (b"ratelimit-limit", b"ratelimit-remaining", b"ratelimit-reset")


class Policies:
    """What never changes about some rates: their names, and the fields that tell them."""

    __slots__ = ("amounts", "line", "names")

    def __init__(self, rates: tuple[Rate, ...]) -> None:
        self.names = [f'"{str(rate).partition("/")[2]}"'.encode() for rate in rates]
        self.amounts = [rate.amount for rate in rates]
        pairs = zip(self.names, rates, strict=True)
        self.line = b", ".join(b"%s;q=%d;w=%d" % (name, rate.amount, rate.period) for name, rate in pairs)


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
