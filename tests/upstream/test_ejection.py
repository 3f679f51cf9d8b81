"""Ejection, its growth and its cap; panic; slow start."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from asgi_gateway.config import Upstream
from asgi_gateway.errors import ConfigError, UpstreamError
from asgi_gateway.gateway import Gateway
from asgi_gateway.upstream import Pool, Target
from tests.properties.profile import examples
from tests.upstream.kit import Hand, pool, request, targets


class Loop:
    """What a pool asks of a loop: to be called later."""

    def __init__(self, clock: Hand) -> None:
        self.clock = clock
        self.later: list[tuple[float, Callable[..., None], tuple[Any, ...]]] = []

    def call_later(self, seconds: float, function: Callable[..., None], *args: Any) -> Any:
        entry = (self.clock.now + seconds, function, args)
        self.later.append(entry)
        return Timer(self, entry)

    def turn(self, seconds: float) -> None:
        """Let time go by."""
        until = self.clock.now + seconds
        while due := [entry for entry in self.later if entry[0] <= until]:
            entry = min(due, key=lambda one: one[0])
            self.later.remove(entry)
            self.clock.now = entry[0]
            entry[1](*entry[2])
        self.clock.now = until


class Timer:
    def __init__(self, loop: Loop, entry: Any) -> None:
        self._loop, self._entry = loop, entry

    def cancel(self) -> None:
        if self._entry in self._loop.later:
            self._loop.later.remove(self._entry)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    loop = Loop(Hand())
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    return loop


def fail(made: Pool, target: Target, times: int = 1) -> None:
    for _ in range(times):
        made.failed(target, UpstreamError("reset", "head"))


def out_for(loop: Loop, made: Pool, target: Target) -> float:
    """How long a target is out after its next failure."""
    fail(made, target)
    assert target.ejected
    began = loop.clock.now
    while target.ejected:
        loop.turn(0.5)
    return loop.clock.now - began


def test_who_fails_again_is_out_for_longer_up_to_a_bound(loop: Loop) -> None:
    ejection = {"failures": 1, "duration": "10s", "max_duration": "35s"}
    made = pool(these := targets(3, loop.clock), clock=loop.clock, ejection=ejection)
    assert [out_for(loop, made, these[0]) for _ in range(5)] == [10, 20, 30, 35, 35]
    loop.turn(25)
    assert out_for(loop, made, these[0]) == 35
    loop.turn(10_000)
    assert out_for(loop, made, these[0]) == 10


def test_an_ejection_that_a_check_ended_does_not_end_the_next_one(loop: Loop) -> None:
    ejection = {"failures": 1, "duration": "10s"}
    made = pool(these := targets(3, loop.clock), clock=loop.clock, ejection=ejection)
    fail(made, these[0])
    loop.turn(6)
    these[0].mark(healthy=True, ejected=False)
    assert out_for(loop, made, these[0]) == 20


def test_a_duration_past_the_bound_holds_as_it_is(loop: Loop) -> None:
    made = pool(these := targets(3, loop.clock), clock=loop.clock, ejection={"failures": 1, "duration": "1h"})
    assert [out_for(loop, made, these[0]) for _ in range(2)] == [3600, 3600]


@pytest.mark.parametrize(
    ("many", "percent", "out"),
    [(1, 100, 0), (2, 50, 1), (2, 100, 1), (3, 10, 1), (3, 0, 0), (10, 50, 5), (10, 99, 9), (10, 100, 9)],
)
def test_so_many_may_be_out(many: int, percent: int, out: int, loop: Loop) -> None:
    ejection = {"failures": 1, "duration": "1h", "max_percent": percent}
    made = pool(these := targets(many, loop.clock), clock=loop.clock, ejection=ejection)
    for target in these:
        fail(made, target)
    assert sum(target.ejected for target in these) == out


def test_targets_without_a_weight_do_not_count_for_the_cap(loop: Loop) -> None:
    ejection = {"failures": 1, "duration": "1h", "max_percent": 100}
    made = pool(these := targets(3, loop.clock), [0, 1, 0], clock=loop.clock, ejection=ejection)
    fail(made, these[1])
    assert not these[1].ejected


@pytest.mark.parametrize(
    ("percent", "down", "all_asked"),
    [(0, 3, False), (0, 4, True), (50, 2, False), (50, 3, True), (100, 1, True), (100, 0, False)],
)
def test_panic_asks_all(percent: int, down: int, all_asked: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "asgi_gateway")
    made = pool(these := targets(4), panic=percent)
    for target in these[:down]:
        target.mark(healthy=False)
    picked = {made.pick(request()) for _ in range(20)}
    assert picked == set(these if all_asked else these[down:])
    assert ("all are asked" in caplog.text) is all_asked
    for target in these:
        target.mark(healthy=True)
    made.pick(request())
    assert ("only these are asked" in caplog.text) is all_asked
    assert made.up()


# Slow start


def shares(made: Pool, times: int = 2200) -> Counter[Target]:
    return Counter(made.pick(request()) for _ in range(times))


def test_a_target_that_is_back_gets_its_share_step_by_step(loop: Loop) -> None:
    made = pool(these := targets(2, loop.clock), clock=loop.clock, slow_start="10s", balancer="round_robin")
    assert shares(made) == {these[0]: 1100, these[1]: 1100}
    loop.turn(100)
    these[0].mark(healthy=False)
    assert shares(made) == {these[1]: 2200}
    these[0].mark(healthy=True)
    parts = []
    for _ in range(11):
        parts.append(shares(made)[these[0]] / 2200)
        loop.turn(1)
    assert parts[0] == pytest.approx(1 / 11, abs=0.01)
    assert parts == sorted(parts)
    assert parts[-1] == pytest.approx(0.5, abs=0.01)
    assert not loop.later
    made.close()


def test_a_new_one_beside_old_ones_is_warmed_up_and_a_first_start_is_not(loop: Loop) -> None:
    these = targets(2, loop.clock)
    assert shares(pool(these, clock=loop.clock, slow_start="10s"))[these[0]] == 1100
    loop.turn(60)
    new = targets(1, loop.clock, "http://10.1.0.")[0]
    made = pool([*these, new], clock=loop.clock, slow_start="10s", balancer="random")
    assert 50 <= shares(made)[new] <= 160
    assert len(loop.later) == 1
    made.close()
    assert not loop.later


@pytest.mark.parametrize("balancer", ["round_robin", "random", "p2c_ewma", "least_requests"])
def test_every_balancer_but_the_hash_warms_up(balancer: str, loop: Loop) -> None:
    these = targets(12, loop.clock)
    loop.turn(100)
    made = pool(these, clock=loop.clock, slow_start="10s", balancer=balancer)
    these[0].mark(healthy=False)
    these[0].mark(healthy=True)
    assert shares(made)[these[0]] <= 2200 / 12 / 2


# Whatever happens


class Ejecting(RuleBasedStateMachine):
    """Calls fail and succeed, checks turn health, time goes by: ejection never empties a pool."""

    @initialize(
        many=st.integers(1, 6),
        failures=st.integers(1, 3),
        percent=st.integers(0, 100),
        duration=st.sampled_from([1, 10]),
    )
    def begin(self, many: int, failures: int, percent: int, duration: int) -> None:
        self.loop = Loop(Hand())
        self.targets = targets(many, self.loop.clock)
        self.percent, self.needed, self.duration = percent, failures, duration
        options = {
            "failures": failures,
            "max_percent": percent,
            "duration": f"{duration}s",
            "max_duration": "30s",
        }
        declared = Upstream.model_validate({"targets": ["http://a"], "ejection": options})
        weighted = [(target, 1) for target in self.targets]
        self.pool = Pool("up", weighted, declared, random.Random(0), self.loop.clock)
        self.pool.open()
        self.streaks = dict.fromkeys(self.targets, 0)

    def at(self, place: int) -> Target:
        return self.targets[place % len(self.targets)]

    @rule(place=st.integers(0, 5), status=st.sampled_from([200, 404, 500, 502, 503, 504]))
    def answer(self, place: int, status: int) -> None:
        target = self.at(place)
        was = {each for each in self.targets if each.available}
        out_before = target.ejected
        with self.running():
            self.pool.answered(target, status)
        self.streaks[target] = self.streaks[target] + 1 if status in (502, 503, 504) else 0
        if target.ejected and not out_before:
            assert self.streaks[target] >= self.needed
            assert was - {target}
            assert target.ejections >= 1
            seconds = max(entry[0] for entry in self.loop.later) - self.loop.clock.now
            assert self.duration <= seconds <= 30

    @rule(place=st.integers(0, 5), healthy=st.booleans())
    def check(self, place: int, healthy: bool) -> None:
        self.at(place).mark(healthy=healthy)

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        ejected = [target for target in self.targets if target.ejected]
        self.loop.turn(seconds)
        for target in ejected:
            if not target.ejected:
                self.streaks[target] = 0

    @rule()
    def pick(self) -> None:
        with self.running():
            picked = self.pool.pick(request())
        assert picked.available or not any(target.available for target in self.targets)

    def running(self) -> Any:
        patch = pytest.MonkeyPatch()
        patch.setattr(asyncio, "get_running_loop", lambda: self.loop)
        return Undoing(patch)

    @invariant()
    def the_cap_holds(self) -> None:
        ejected = sum(target.ejected for target in self.targets)
        most = max(1, len(self.targets) * self.percent // 100) if self.percent else 0
        assert ejected <= min(most, len(self.targets) - 1) or len(self.targets) == 1

    def teardown(self) -> None:
        self.loop.turn(1000)
        assert not any(target.ejected for target in self.targets)


class Undoing:
    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        self._patch.undo()


Ejecting.TestCase.settings = examples(100, stateful_step_count=40)
test_ejection_never_empties_a_pool_and_always_ends = Ejecting.TestCase


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"balancer": "consistent_hash", "hash": {"by": "moon"}}, "'moon' is nothing to hash (ip, consumer"),
        ({"hash": {"load": 1}}, "load"),
        ({"sticky": {"cookie": "a b"}}, "cookie"),
        ({"slow_start": "5"}, "'5' is not a time"),
        ({"panic": 101}, "panic"),
    ],
    ids=["by", "load", "cookie", "time", "panic"],
)
def test_what_makes_no_sense_is_told(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Gateway.parse({"upstreams": {"up": {"targets": ["http://a"], **options}}})
    assert says in str(raised.value)
