"""The only place that decides which of the available targets is next."""

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, cycle
from math import gcd
from typing import Literal

from .target import Target

Weighted = Sequence[tuple[Target, int]]
Pick = Callable[[], Target]

Balancer = Literal["round_robin", "random", "least_requests"]


def balancer(name: Balancer, targets: Weighted, dice: random.Random) -> Pick:
    """A function that picks among `targets`, each with a weight above 0. Called again when the available ones
    change.
    """
    if len(targets) == 1:
        only = targets[0][0]
        return lambda: only
    return {"round_robin": round_robin, "random": at_random, "least_requests": least_requests}[name](
        targets, dice
    )


def round_robin(targets: Weighted, dice: random.Random) -> Pick:
    """Exact by weight in every round, and spread as evenly as possible within it."""
    return cycle(schedule(targets)).__next__


def schedule(targets: Weighted) -> Iterator[Target]:
    """Smooth weighted round robin as nginx does it: each turn adds the weights, the largest pays the sum."""
    divisor = gcd(*(weight for _, weight in targets))
    weights = [weight // divisor for _, weight in targets]
    if max(weights) == 1:
        yield from (target for target, _ in targets)
        return
    total, current = sum(weights), [0] * len(weights)
    for _ in range(total):
        current = [have + weight for have, weight in zip(current, weights, strict=True)]
        best = current.index(max(current))
        current[best] -= total
        yield targets[best][0]


def at_random(targets: Weighted, dice: random.Random) -> Pick:
    population = [target for target, _ in targets]
    bounds = list(accumulate(weight for _, weight in targets))
    return lambda: dice.choices(population, cum_weights=bounds)[0]


def least_requests(targets: Weighted, dice: random.Random) -> Pick:
    """The target with the fewest calls in flight for its weight; among equals whose turn it is."""
    turn = round_robin(targets, dice)
    weight = dict(targets)

    def pick() -> Target:
        first = turn()
        best, load = first, (first.active + 1) / weight[first]
        for target, share in targets:
            if (target.active + 1) / share < load:
                best, load = target, (target.active + 1) / share
        return best

    return pick
