"""The only place that picks a target, and takes out those that fail."""

import asyncio
import logging
import random
from collections.abc import Sequence

from ..config import EjectionConfig
from ..errors import UpstreamError
from .balancers import Balancer, Pick, balancer
from .target import Target

logger = logging.getLogger("asgi_gateway")

FAILED = frozenset({502, 503, 504})
BLAMELESS = frozenset({"pool_full", "pool_timeout", "no_target", "exhausted"})
"""Failures of the gateway's own bounds, which say nothing about a target."""


class Pool:
    """A view on the targets of one upstream."""

    def __init__(
        self,
        name: str,
        targets: Sequence[tuple[Target, int]],
        kind: Balancer,
        ejection: EjectionConfig | None,
        dice: random.Random,
    ) -> None:
        self.name = name
        self.targets = tuple(targets)
        self._kind: Balancer = kind
        self._ejection = ejection
        self._dice = dice
        self._pick: Pick | None = None
        self._up = True

    def up(self) -> bool:
        """Whether a target is available."""
        return self._up

    def open(self) -> None:
        """Begin to follow the health of the targets."""
        for target, _ in self.targets:
            target.watch(self._changed)
        self._changed()

    def close(self) -> None:
        for target, _ in self.targets:
            target.forget(self._changed)

    def _changed(self) -> None:
        weighted = [(target, weight) for target, weight in self.targets if weight]
        # With no healthy target at all the checks are more likely to be wrong than all targets to be down.
        there = [(target, weight) for target, weight in weighted if target.available]
        self._up, there = bool(there), there or weighted
        self._pick = balancer(self._kind, there, self._dice) if there else None

    def pick(self, avoid: Sequence[Target] = ()) -> Target:
        """The next target; one of `avoid` only where no other is available."""
        if self._pick is None:
            raise UpstreamError(
                "no_target", "pool", f"upstream {self.name!r} has no target with a weight above 0"
            )
        target = self._pick()
        if target in avoid:
            others = [
                other for other, weight in self.targets if weight and other.available and other not in avoid
            ]
            target = self._dice.choice(others) if others else target
        return target

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
        if target.local is None and not target.told:
            # Once, until it answers again: a target that is gone fails with each request. What an app in this
            # process raises is in the log already.
            target.told = True
            logger.warning("upstream %s: target %s fails: %s", self.name, target.name, why)
        ejection = self._ejection
        if ejection is None or target.ejected or target.failures < ejection.failures:
            return
        out = sum(not other.available for other, _ in self.targets)
        if (out + 1) * 100 > ejection.max_percent * len(self.targets) or out + 1 >= len(self.targets):
            return
        target.mark(ejected=True)
        logger.warning(
            "upstream %s: target %s is left out for %g s after %d failures",
            *(self.name, target.name, ejection.duration, target.failures),
        )
        asyncio.get_running_loop().call_later(ejection.duration, self._readmit, target)

    def _readmit(self, target: Target) -> None:
        if target.ejected:
            target.failures = 0
            target.mark(ejected=False)
            logger.info("upstream %s: target %s is tried again", self.name, target.name)

    def __repr__(self) -> str:
        return f"<Pool {self.name!r} {[target for target, _ in self.targets]}>"
