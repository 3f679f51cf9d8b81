"""The only place that leads the same caller to the same target."""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from heapq import nlargest
from math import ceil, log

from ..asgi import Scope, cookie, header
from ..config import HashConfig
from ..exchange import EXCHANGE, Exchange
from .target import Target

SLOTS = 65536
"""What keys are spread over. A target has its share of them, more or less one in the root of their number."""
NEXT = 4
"""Targets of a slot that are remembered once the first of them could not be asked."""
MASK, UNIT = (1 << 64) - 1, 2.0**-64
MIX = 0x9E3779B97F4A7C15
"""The golden ratio of 64 bits, as in Fibonacci hashing."""

Key = Callable[[Scope], bytes]


def key_by(by: str) -> Key:
    """What of a request is hashed; empty: it has none."""
    kind, _, name = by.partition(":")
    field = name.lower().encode()
    if kind == "header":
        return lambda scope: header(scope["headers"], field) or b""
    if kind == "cookie":
        return lambda scope: cookie(scope["headers"], name.encode())
    return by_consumer if kind == "consumer" else by_address


def by_address(scope: Scope) -> bytes:
    exchange: Exchange = scope[EXCHANGE]
    return exchange.client.encode()


def by_consumer(scope: Scope) -> bytes:
    principal = scope[EXCHANGE].principal
    return b"" if principal is None else principal.consumer.encode()


class ConsistentHash:
    """Rendezvous hashing over slots: a target that leaves gives its slots to all others, one that comes takes
    its share from all others, and nothing else moves. The targets of a slot are found when it is first used.
    """

    def __init__(self, options: HashConfig, targets: Sequence[tuple[Target, int]]) -> None:
        self._key = key_by(options.by)
        self._load = options.load
        self._targets = [target for target, weight in targets if weight]
        self._weights = [weight for _, weight in targets if weight]
        self._equal = len(set(self._weights)) == 1
        self._seeds = [hashed(target.name.encode()) for target in self._targets]
        self._pairs = list(zip(self._seeds, self._weights, strict=True))
        self._slots: dict[int, tuple[int, ...]] = {}
        self._picks = len(self._targets)
        self._busy = 0
        self._share = 1.0
        self.panic = False
        """Whether targets count that are not available."""

    def pick(self, scope: Scope, avoid: Sequence[Target] = ()) -> Target | None:
        """The target of the caller; the next one of its slot where that is away or has too much to do."""
        key = self._key(scope)
        if not key:
            return None
        if self._load is not None:
            self._count()
        slot = hashed(key) % SLOTS
        known = self._slots.get(slot)
        if known is None:
            known = self._slots[slot] = self.ranked(slot, 1)
        if self._takes(known[0], avoid):
            return self._targets[known[0]]
        if len(known) == 1:
            known = self._slots[slot] = self.ranked(slot, NEXT)
        for place in known[1:]:
            if self._takes(place, avoid):
                return self._targets[place]
        order = self.ranked(slot, len(self._targets))
        for place in order:
            if self._takes(place, avoid):
                return self._targets[place]
        # All have as much as they may: the bound says nothing then.
        there = (self._targets[place] for place in order)
        return next((target for target in there if self._is_there(target, avoid)), None)

    def _is_there(self, target: Target, avoid: Sequence[Target]) -> bool:
        return (target.available or self.panic) and target not in avoid

    def _takes(self, place: int, avoid: Sequence[Target]) -> bool:
        target = self._targets[place]
        return self._is_there(target, avoid) and (
            self._load is None or target.active < ceil(self._weights[place] * self._share)
        )

    def _count(self) -> None:
        """Find out what a target may have, once in as many picks as there are targets: so a pick costs the
        same, and the mean is off by one call at most.
        """
        self._picks += 1
        if self._picks >= len(self._targets):
            self._picks = 0
            there = [place for place, target in enumerate(self._targets) if target.available or self.panic]
            busy = sum(self._targets[place].active for place in there)
            weight = sum(self._weights[place] for place in there) or 1
            assert self._load is not None
            self._share = self._load * (busy + 1) / weight

    def ranked(self, slot: int, many: int) -> tuple[int, ...]:
        """The first targets of a slot, the best first."""
        drawn = hashed(b"%d" % slot)
        # Both are random: one multiplication is enough to make their order so.
        if self._equal:
            scores: Sequence[float] = [(seed ^ drawn) * MIX & MASK for seed in self._seeds]
        else:
            scores = [log(((seed ^ drawn) * MIX & MASK | 1) * UNIT) / weight for seed, weight in self._pairs]
        if many == 1:
            return (scores.index(max(scores)),)
        return tuple(nlargest(many, range(len(scores)), key=scores.__getitem__))


def hashed(text: bytes) -> int:
    return int.from_bytes(blake2b(text, digest_size=8).digest())
