"""The only place that picks a target, and takes out those that fail."""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from functools import partial

from ..asgi import Scope
from ..config import EjectionConfig
from ..config import Upstream as Options
from ..errors import UpstreamError
from .balancers import Balancer, Pick, balancer
from .hashing import ConsistentHash
from .sticky import Sticky
from .target import Target

logger = logging.getLogger("asgi_gateway")

FAILED = frozenset({502, 503, 504})
BLAMELESS = frozenset({"pool_full", "pool_timeout", "no_target", "exhausted"})
"""Failures of the gateway's own bounds, which say nothing about a target."""

STEPS = 10
"""In how many steps the share of a target grows; the first one is that part of it."""
TRIES = 3
"""How often a balancer is asked for a target that is not to be avoided."""


class Pool:
    """A view on the targets of one upstream."""

    def __init__(
        self,
        name: str,
        targets: Sequence[tuple[Target, int]],
        options: Options,
        dice: random.Random,
        monotonic: Callable[[], float],
    ) -> None:
        self.name = name
        self.targets = tuple(targets)
        self.timed = options.balancer == "p2c_ewma"
        """Whether the balancer wants to know how long answers take."""
        self.monotonic = monotonic
        self._weighted = [(target, weight) for target, weight in self.targets if weight]
        self._kind: Balancer = options.balancer
        hashes = self._kind == "consistent_hash" and len(self._weighted) > 1
        self._hash = ConsistentHash(options.hash, self._weighted) if hashes else None
        sticky = options.sticky
        self._sticky = Sticky(name, sticky, [target for target, _ in targets]) if sticky else None
        self._ejection: EjectionConfig | None = options.ejection
        self._slow_start = options.slow_start
        self._least = options.panic * len(self._weighted) / 100
        self._dice = dice
        self._pick: Pick | None = None
        self._stale = True
        self._up = True
        self._out = 0
        """Targets that are not available."""
        self._panic = False
        self._timer: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Begin to follow the health of the targets."""
        for target, _ in self.targets:
            target.watch(self._changed)
        self._changed()

    def close(self) -> None:
        for target, _ in self.targets:
            target.forget(self._changed)
        if self._timer is not None:
            self._timer.cancel()

    def up(self) -> bool:
        """Whether a target is available."""
        if self._stale:
            self._build()
        return self._up

    def _changed(self) -> None:
        # What a thousand targets do at one time is looked at once, when somebody asks.
        self._stale = True

    def _build(self) -> None:
        """See which targets there are."""
        self._stale = False
        there = [(target, weight) for target, weight in self._weighted if target.available]
        self._up, self._out = bool(there), len(self._weighted) - len(there)
        # With so few healthy targets the checks are more likely to be wrong than all targets to be down, and
        # those that are left would not bear what all others did.
        panic = len(there) < self._least or not there
        if panic is not self._panic and self._weighted:
            self._panic = panic
            said = f"{len(there)} of {len(self._weighted)} targets are available"
            if panic:
                logger.warning("upstream %s: %s: all are asked", self.name, said)
            else:
                logger.info("upstream %s: %s: only these are asked", self.name, said)
        if panic:
            there = self._weighted
        if self._hash is not None:
            self._hash.panic = panic
        if self._slow_start and not panic:
            there = self._warming(there)
        if self._pick is not None and there:
            # A new round does not begin with the same target each time that one comes or goes.
            first = self._dice.randrange(len(there))
            there = there[first:] + there[:first]
        self._pick = balancer(self._kind, there, self._dice, self.monotonic) if there else None

    def _warming(self, there: list[tuple[Target, int]]) -> list[tuple[Target, int]]:
        """The same with the weights that targets have by now which are new or back."""
        now, step = self.monotonic(), self._slow_start / STEPS
        steps = [min(STEPS, 1 + int((now - target.since) / step)) for target, _ in there]
        if min(steps, default=STEPS) == max(steps, default=STEPS):
            # All of them are new: there is nobody who could take more meanwhile.
            return there
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(step, self._changed)
        return [(target, weight * part) for (target, weight), part in zip(there, steps, strict=True)]

    def pick(self, scope: Scope, avoid: Sequence[Target] = ()) -> Target:
        """The next target; one of `avoid` only where no other is available."""
        if self._stale:
            self._build()
        if self._sticky is not None:
            target = self._sticky.find(scope, partial(self._is_there, avoid))
            if target is not None:
                return target
        if self._hash is not None:
            target = self._hash.pick(scope, avoid)
            if target is not None:
                return target
        if self._pick is None:
            raise UpstreamError(
                "no_target", "pool", f"upstream {self.name!r} has no target with a weight above 0"
            )
        target = self._pick()
        return target if target not in avoid else self._other(target, avoid)

    def _other(self, target: Target, avoid: Sequence[Target]) -> Target:
        """Another target than these, if there is one."""
        assert self._pick is not None
        for _ in range(TRIES):
            if (other := self._pick()) not in avoid:
                return other
        others = [other for other, _ in self._weighted if self._is_there(avoid, other)]
        return self._dice.choice(others) if others else target

    def _is_there(self, avoid: Sequence[Target], target: Target) -> bool:
        return (target.available or self._panic) and target not in avoid

    def answered(self, target: Target, status: int) -> None:
        """A target gave a whole answer."""
        if status in FAILED:
            self.failed(target, f"it answered {status}")
        elif target.failures:
            if target.told:
                logger.info("upstream %s: target %s answers again", self.name, target.name)
                target.told = False
            target.failures = 0

    def failed(self, target: Target, why: UpstreamError | str) -> None:
        """A call to a target failed; too many in a row eject it for a while, if enough others stay."""
        if isinstance(why, UpstreamError) and why.reason in BLAMELESS:
            return
        target.failures += 1
        if self.timed:
            target.fell(self.monotonic())
        if target.local is None and not target.told:
            # Once, until it answers again: a target that is gone fails with each request. What an app in this
            # process raises is in the log already.
            target.told = True
            logger.warning("upstream %s: target %s fails: %s", self.name, target.name, why)
        ejection = self._ejection
        if ejection is None or target.ejected or target.failures < ejection.failures:
            return
        if self._may_eject(ejection):
            self._eject(target, ejection)

    def _may_eject(self, ejection: EjectionConfig) -> bool:
        """Whether one more target may be out. One always may, unless none shall; the last one never."""
        if self._stale:
            self._build()
        many, out = len(self._weighted), self._out + 1
        most = max(1, many * ejection.max_percent // 100) if ejection.max_percent else 0
        return out <= most and out < many

    def _eject(self, target: Target, ejection: EjectionConfig) -> None:
        # Each time that went well takes one back.
        well = self.monotonic() - target.since
        target.ejections = max(0, target.ejections - int(well / ejection.duration)) + 1
        seconds = min(ejection.duration * target.ejections, max(ejection.duration, ejection.max_duration))
        target.mark(ejected=True)
        logger.warning(
            "upstream %s: target %s is left out for %g s after %d failures",
            *(self.name, target.name, seconds, target.failures),
        )
        if target.readmission is not None:
            # Of an ejection that a check has ended: it would end this one too early.
            target.readmission.cancel()
        target.readmission = asyncio.get_running_loop().call_later(seconds, self._readmit, target)

    def _readmit(self, target: Target) -> None:
        target.readmission = None
        if target.ejected:
            target.failures = 0
            target.mark(ejected=False)
            logger.info("upstream %s: target %s is tried again", self.name, target.name)

    def __repr__(self) -> str:
        return f"<Pool {self.name!r} {[target for target, _ in self.targets]}>"
