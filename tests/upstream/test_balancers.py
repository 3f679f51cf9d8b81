"""Fairness of the balancers, and what a pick costs."""

import random
from collections import Counter
from collections.abc import Sequence
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from asgi_gateway.asgi import Scope
from asgi_gateway.upstream import Pool, Target
from asgi_gateway.upstream.balancers import Balancer, balancer, quickest_of_two, round_robin
from tests.properties.profile import examples
from tests.upstream.kit import Hand, pool, request, targets

WEIGHTS = st.lists(st.integers(1, 30), min_size=1, max_size=8)
EVERY: tuple[Balancer, ...] = ("round_robin", "random", "least_requests", "p2c_ewma", "consistent_hash")


@given(weights=WEIGHTS, rounds=st.integers(1, 4))
def test_round_robin_is_exact_in_every_round(weights: list[int], rounds: int) -> None:
    these = targets(len(weights))
    pick = round_robin(list(zip(these, weights, strict=True)))
    for _ in range(rounds):
        counted = Counter(pick().name for _ in range(sum(weights)))
        assert [counted[target.name] for target in these] == weights


@given(weights=WEIGHTS)
def test_round_robin_is_even_within_a_round(weights: list[int]) -> None:
    """At no moment does a target have more than one turn too many or too few."""
    these = targets(len(weights))
    pick, total, counted = round_robin(list(zip(these, weights, strict=True))), sum(weights), Counter[str]()
    for number in range(1, 2 * total):
        counted[pick().name] += 1
        for target, weight in zip(these, weights, strict=True):
            assert abs(counted[target.name] - number * weight / total) <= len(weights) / 2 + 1


def test_round_robin_stays_exact_after_very_many_turns() -> None:
    these = targets(3)
    pick = round_robin([(these[0], 997), (these[1], 2), (these[2], 1)])
    for _ in range(100):
        assert Counter(pick().name for _ in range(1000))[these[0].name] == 997


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 2, 5), (100, 1)])
@pytest.mark.parametrize("kind", ["random", "p2c_ewma", "least_requests"])
def test_everybody_gets_a_fair_part(kind: Balancer, weights: tuple[int, ...]) -> None:
    """Within three sigma, where nobody is busy."""
    these = targets(len(weights))
    pick = balancer(kind, list(zip(these, weights, strict=True)), random.Random(1), Hand())
    counted, total = Counter(pick().name for _ in range(5000)), sum(weights)
    for target, weight in zip(these, weights, strict=True):
        part = weight / total
        assert abs(counted[target.name] - 5000 * part) <= 3 * (5000 * part * (1 - part)) ** 0.5


@pytest.mark.parametrize("many", [2, 8, 9, 100])
def test_the_least_busy_are_asked(many: int) -> None:
    """Calls that stay: no target has many more of them than another one."""
    these = targets(many)
    pick = balancer("least_requests", [(target, 1) for target in these], random.Random(2), Hand())
    for _ in range(20 * many):
        pick().active += 1
    assert max(target.active for target in these) - min(target.active for target in these) <= 6


@given(
    busy=st.lists(st.integers(0, 20), min_size=2, max_size=8), weights=st.lists(st.integers(1, 5), min_size=8)
)
def test_of_few_targets_the_least_busy_one_is_found(busy: list[int], weights: list[int]) -> None:
    these = targets(len(busy))
    weighted = list(zip(these, weights, strict=False))
    for target, active in zip(these, busy, strict=True):
        target.active = active
    picked = balancer("least_requests", weighted, random.Random(0), Hand())()
    loads = {target: target.active / weight for target, weight in weighted}
    assert loads[picked] == min(loads.values())


class Service:
    """Targets that take their time; `p2c_ewma` learns from what they took."""

    def __init__(self, *seconds: float) -> None:
        self.clock = Hand()
        self.seconds = dict(zip(targets(len(seconds), self.clock), seconds, strict=True))
        weighted = [(target, 1) for target in self.seconds]
        self.pick = quickest_of_two(weighted, random.Random(3), self.clock)

    def ask(self, times: int, fails: Target | None = None) -> Counter[Target]:
        counted = Counter[Target]()
        for _ in range(times):
            target = self.pick()
            counted[target] += 1
            self.clock.now += 0.01
            if target is fails:
                target.fell(self.clock.now)
            else:
                target.took(self.seconds[target], self.clock.now)
        return counted


def test_the_quick_ones_are_preferred() -> None:
    service = Service(0.01, 0.01, 0.2)
    slow = list(service.seconds)[2]
    service.ask(50)
    assert service.ask(1000)[slow] < 20


def test_a_slow_one_is_tried_again_and_comes_back() -> None:
    service = Service(0.01, 0.2)
    slow = list(service.seconds)[1]
    service.ask(300)
    service.seconds[slow] = 0.001
    service.ask(10_000)
    assert service.ask(1000)[slow] > 400


def test_failing_at_once_is_not_being_quick() -> None:
    service = Service(0.05, 0.05, 0.05)
    bad = next(iter(service.seconds))
    service.ask(30, fails=bad)
    assert service.ask(1000, fails=bad)[bad] < 30


def test_calls_in_flight_count() -> None:
    service = Service(0.1, 0.1)
    one, other = service.seconds
    service.ask(20)
    one.active = 10
    assert service.ask(100)[other] == 100


def test_an_unknown_target_gets_one_call_until_it_has_answered() -> None:
    service = Service(0.01, 0.01)
    one, new = service.seconds
    one.took(0.01, service.clock.now)
    assert service.pick() is new
    new.active = 1
    assert {service.pick() for _ in range(20)} == {one}


@given(times=st.lists(st.tuples(st.floats(0.001, 10), st.floats(0, 30)), min_size=1, max_size=30))
def test_what_is_known_of_a_latency_lies_between_what_was_measured(times: list[tuple[float, float]]) -> None:
    clock = Hand()
    target = Target("a", monotonic=clock)
    for seconds, later in times:
        clock.now += later
        target.took(seconds, clock.now)
        assert seconds <= target.latency(clock.now) * (1 + 1e-9)
        assert target.latency(clock.now) <= max(seen for seen, _ in times) * (1 + 1e-9)


# Any balancer in a pool, whatever becomes of the targets


class Balancing(RuleBasedStateMachine):
    """Targets come and go, and are busy: who is picked is available, and has a weight."""

    @initialize(
        weights=st.lists(st.integers(0, 5), min_size=1, max_size=12).filter(any),
        kind=st.sampled_from(EVERY),
        panic=st.sampled_from([0, 0, 50]),
    )
    def begin(self, weights: list[int], kind: Balancer, panic: int) -> None:
        self.clock = Hand()
        self.targets = targets(len(weights), self.clock)
        self.weighted = [target for target, weight in zip(self.targets, weights, strict=True) if weight]
        self.least = panic * len(self.weighted) / 100
        options = {"balancer": kind, "panic": panic, "hash": {"by": "header:x"}}
        self.pool = pool(self.targets, weights, clock=self.clock, **options)

    @property
    def there(self) -> list[Target]:
        there = [target for target in self.weighted if target.available]
        return there if there and len(there) >= self.least else self.weighted

    @rule(place=st.integers(0, 11), healthy=st.booleans())
    def health(self, place: int, healthy: bool) -> None:
        self.targets[place % len(self.targets)].mark(healthy=healthy)

    @rule(place=st.integers(0, 11), ejected=st.booleans())
    def eject(self, place: int, ejected: bool) -> None:
        self.targets[place % len(self.targets)].mark(ejected=ejected)

    @rule(place=st.integers(0, 11), active=st.integers(0, 50))
    def keep_busy(self, place: int, active: int) -> None:
        self.targets[place % len(self.targets)].active = active

    @rule(seconds=st.floats(0, 60))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(key=st.text("abc", max_size=3), avoided=st.integers(0, 3))
    def pick(self, key: str, avoided: int) -> None:
        avoid = self.there[:avoided]
        picked = self.pool.pick(request("", ("x", key)), avoid)
        assert picked in self.there
        if len(avoid) < len(self.there):
            assert picked not in avoid

    @invariant()
    def it_knows_whether_anybody_is_there(self) -> None:
        assert self.pool.up() is any(target.available for target in self.weighted)


Balancing.TestCase.settings = examples(100, stateful_step_count=30)
test_who_is_picked_is_available_and_not_to_be_avoided = Balancing.TestCase


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("weights", [(1,), (1, 2, 3)])
def test_a_pick_costs_the_same_among_a_thousand_targets(kind: Balancer, weights: tuple[int, ...]) -> None:
    """Not more than a few times what it costs among ten: it looks at no list of all."""
    took = {}
    scopes = [request(f"203.0.113.{number}") for number in range(64)]
    for many in (10, 1000):
        these = targets(many)
        made = pool(these, [weights[number % len(weights)] for number in range(many)], balancer=kind)
        for scope in scopes:
            made.pick(scope)
        took[many] = min(timed(made, scopes) for _ in range(30))
    assert took[1000] <= 5 * took[10]


def timed(made: Pool, scopes: Sequence[Scope]) -> float:
    began = perf_counter()
    for scope in scopes:
        made.pick(scope)
    return perf_counter() - began
