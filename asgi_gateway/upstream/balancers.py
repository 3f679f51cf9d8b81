"""The only place that decides which of the available targets is next, whoever asks."""

import random
from collections.abc import Callable, Sequence
from heapq import heapify, heapreplace
from itertools import accumulate, cycle
from math import gcd
from typing import Literal

from .target import Target

Weighted = Sequence[tuple[Target, int]]
Pick = Callable[[], Target]

Balancer = Literal["round_robin", "random", "least_requests", "p2c_ewma", "consistent_hash"]

ALL = 8
"""Targets that `least_requests` looks at, all of them; among more, at two: a pick costs the same then."""


def balancer(name: Balancer, targets: Weighted, dice: random.Random, now: Callable[[], float]) -> Pick:
    """A function that picks among `targets`, each with a weight above 0. Called again when the available ones
    change.
    """
    if len(targets) == 1:
        only = targets[0][0]
        return lambda: only
    if name == "round_robin":
        return round_robin(targets)
    if name == "least_requests":
        return least_requests(targets, dice)
    if name == "p2c_ewma":
        return quickest_of_two(targets, dice, now)
    return at_random(targets, dice)


def round_robin(targets: Weighted) -> Pick:
    """Exact by weight in every round, and spread evenly within it: the one whose turn is earliest has it."""
    divisor = gcd(*(weight for _, weight in targets))
    weights = [weight // divisor for _, weight in targets]
    if max(weights) == 1:
        return cycle([target for target, _ in targets]).__next__
    # The turns of a target with weight 3 are at 1/6, 3/6 and 5/6 of each round.
    turns = [(0.5 / weight, place, 0) for place, weight in enumerate(weights)]
    heapify(turns)

    def pick() -> Target:
        _, place, number = turns[0]
        heapreplace(turns, ((number + 1.5) / weights[place], place, number + 1))
        return targets[place][0]

    return pick


def at_random(targets: Weighted, dice: random.Random) -> Pick:
    population = [target for target, _ in targets]
    if len({weight for _, weight in targets}) == 1:
        roll, many = dice.random, len(targets)
        return lambda: population[int(roll() * many)]
    bounds = list(accumulate(weight for _, weight in targets))
    return lambda: dice.choices(population, cum_weights=bounds)[0]


def two_of(targets: Weighted, dice: random.Random) -> Callable[[], Sequence[tuple[Target, int]]]:
    """Two at random, by weight; two different ones where the weights are equal."""
    if len({weight for _, weight in targets}) > 1:
        bounds = list(accumulate(weight for _, weight in targets))
        return lambda: dice.choices(targets, cum_weights=bounds, k=2)
    roll, many = dice.random, len(targets)

    def two() -> Sequence[tuple[Target, int]]:
        one, other = int(roll() * many), int(roll() * (many - 1))
        return targets[one], targets[other + (other >= one)]

    return two


def least_requests(targets: Weighted, dice: random.Random) -> Pick:
    """The target with the fewest calls in flight for its weight; among equals whose turn it is."""
    if len(targets) > ALL:
        return idler_of_two(targets, dice)
    turn = round_robin(targets)
    weight = dict(targets)

    def pick() -> Target:
        first = turn()
        best, load = first, first.active / weight[first]
        for target, share in targets:
            if target.active / share < load:
                best, load = target, target.active / share
        return best

    return pick


def idler_of_two(targets: Weighted, dice: random.Random) -> Pick:
    """The power of two choices: nearly as good as a look at all, and not all callers run to the same one."""
    two = two_of(targets, dice)

    def pick() -> Target:
        (one, its), (other, others) = two()
        return one if one.active * others <= other.active * its else other

    return pick


def quickest_of_two(targets: Weighted, dice: random.Random, now: Callable[[], float]) -> Pick:
    """Of two the one that makes callers wait for less: what it took lately, times the calls in flight."""
    two = two_of(targets, dice)

    def pick() -> Target:
        (one, _), (other, _) = two()
        at = now()
        return one if one.cost(at) <= other.cost(at) else other

    return pick
