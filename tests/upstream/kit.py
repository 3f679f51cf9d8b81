"""Targets that go nowhere, and requests that only have what a balancer looks at."""

import random
from collections.abc import Sequence
from typing import Any

from asgi_gateway.asgi import Scope, Send
from asgi_gateway.call import CALL, Call, closed
from asgi_gateway.config import Upstream
from asgi_gateway.consumers import Principal
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.upstream import Pool, Target


class Hand:
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def targets(many: int, clock: Hand | None = None, prefix: str = "http://10.0.0.") -> list[Target]:
    return [Target(f"{prefix}{number}:80", monotonic=clock or Hand()) for number in range(many)]


def pool(
    these: Sequence[Target],
    weights: Sequence[int] = (),
    *,
    clock: Hand | None = None,
    seed: int = 0,
    **options: Any,
) -> Pool:
    declared = Upstream.model_validate({"targets": ["http://a"], **options})
    weighted = list(zip(these, weights or [1] * len(these), strict=True))
    made = Pool("up", weighted, declared, random.Random(seed), clock or Hand())
    made.open()
    return made


def request(
    client: str = "", *fields: tuple[str, str], consumer: str = "", scheme: str = "http", send: Send = closed
) -> Scope:
    headers = [(name.encode(), value.encode()) for name, value in fields]
    scope: Scope = {"type": "http", "headers": headers}
    exchange = Exchange(scope, send, 0.0)
    exchange.client, exchange.scheme = client, scheme
    if consumer:
        exchange.principal = Principal(consumer, "key_auth")
    scope = {**scope, EXCHANGE: exchange}
    scope[CALL] = Call("up", closed, 0.0, 1e9, None)
    return scope
