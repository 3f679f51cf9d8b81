"""Which callers move when targets come and go, and what bounds a target."""

from collections import Counter
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_gateway.config import HashConfig
from asgi_gateway.upstream import Target
from asgi_gateway.upstream.hashing import ConsistentHash
from tests.properties.profile import examples
from tests.upstream.kit import pool, request, targets

CALLERS = 3000


def lead(these: list[Target], weights: list[int] | None = None, **options: Any) -> dict[int, Target]:
    """Who goes where."""
    weighted = list(zip(these, weights or [1] * len(these), strict=True))
    way = ConsistentHash(HashConfig.model_validate({"load": None, **options}), weighted)
    picked = {number: way.pick(request(f"caller {number}")) for number in range(CALLERS)}
    return {number: target for number, target in picked.items() if target is not None}


@pytest.mark.parametrize("many", [2, 3, 5, 10, 50])
def test_when_a_target_leaves_only_its_callers_move(many: int) -> None:
    these = targets(many)
    before = lead(these)
    for gone in (these[0], these[-1]):
        after = lead([target for target in these if target is not gone])
        moved = [number for number in before if before[number] is not after[number]]
        assert all(before[number] is gone for number in moved)
        assert len(moved) / CALLERS <= 1 / many + 0.02


@pytest.mark.parametrize("many", [2, 3, 5, 10, 50])
def test_a_target_that_is_not_well_gives_its_callers_to_all_others(many: int) -> None:
    these = targets(many)
    before = lead(these)
    these[0].mark(healthy=False)
    after = lead(these)
    moved = Counter(after[number] for number in before if before[number] is not after[number])
    assert sum(moved.values()) == sum(target is these[0] for target in before.values())
    assert len(moved) == many - 1 or many > 10
    assert lead([target for target in these if target is not these[0]]) == after


def test_a_target_that_comes_takes_its_share_from_all_others() -> None:
    these = targets(11)
    before, after = lead(these[:10]), lead(these)
    moved = [number for number in before if before[number] is not after[number]]
    assert {after[number] for number in moved} == {these[10]}
    assert abs(len(moved) / CALLERS - 1 / 11) <= 0.02


@pytest.mark.parametrize("weights", [[1, 1], [1, 1, 1], [1, 3], [5, 1, 2, 2], [10, 0, 10]], ids=str)
def test_targets_get_their_weights(weights: list[int]) -> None:
    counted = Counter(lead(these := targets(len(weights)), weights).values())
    for target, weight in zip(these, weights, strict=True):
        assert abs(counted[target] / CALLERS - weight / sum(weights)) <= 0.03


@given(
    weights=st.lists(st.integers(1, 9), min_size=2, max_size=6), grown=st.integers(0, 5), by=st.integers(1, 9)
)
@examples(30)
def test_a_growing_weight_moves_callers_to_its_target_only(weights: list[int], grown: int, by: int) -> None:
    these, place = targets(len(weights)), grown % len(weights)
    before = lead(these, weights)
    weights[place] += by
    after = lead(these, weights)
    assert all(after[number] in (before[number], these[place]) for number in before)


def test_the_order_of_the_file_and_other_processes_change_nothing() -> None:
    these = targets(7)
    assert lead(these) == lead(these[::-1])
    picked = [lead(targets(5))[number].name for number in range(8)]
    assert picked == [f"http://10.0.0.{number}:80" for number in KNOWN]


KNOWN = [0, 3, 0, 0, 4, 2, 1, 0]


@pytest.mark.parametrize(
    ("by", "one", "other"),
    [
        ("ip", request("10.1.1.1"), request("10.1.1.2")),
        ("header:X-User", request("", ("x-user", "a")), request("", ("x-user", "b"))),
        ("cookie:who", request("", ("cookie", "z=1; who=a")), request("", ("cookie", "who=b"))),
        ("consumer", request(consumer="a"), request(consumer="b")),
    ],
    ids=["ip", "header", "cookie", "consumer"],
)
def test_what_makes_a_caller(by: str, one: Any, other: Any) -> None:
    these = targets(50)
    way = ConsistentHash(HashConfig(by=by, load=None), [(target, 1) for target in these])
    assert way.pick(one) is way.pick(one)
    assert way.pick(one) is not way.pick(other)
    assert way.pick(request()) is None


def test_who_has_no_key_gets_any_target() -> None:
    these = targets(5)
    made = pool(these, balancer="consistent_hash", hash={"by": "header:x-user"})
    assert len({made.pick(request()) for _ in range(100)}) == 5


@given(
    many=st.integers(2, 12),
    load=st.floats(1.05, 3),
    calls=st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=150),
    data=st.data(),
)
@examples(60)
def test_no_target_has_more_than_its_bound(
    many: int, load: float, calls: list[tuple[int, bool]], data: st.DataObject
) -> None:
    """However few callers there are: a target has at most `load` times its share, or one call more."""
    these = targets(many)
    weights = data.draw(st.lists(st.integers(1, 3), min_size=many, max_size=many))
    way = ConsistentHash(HashConfig(load=load), list(zip(these, weights, strict=True)))
    running: list[Target] = []
    for caller, ends in calls:
        if ends and running:
            running.pop(0).active -= 1
        target = way.pick(request(f"caller {caller}"))
        assert target is not None
        share = weights[these.index(target)] / sum(weights)
        # The mean is taken once in as many picks as there are targets: calls may have ended since.
        bound = ceil(load * (len(running) + 1 + many) * share)
        assert target.active < bound
        target.active += 1
        running.append(target)


def test_a_caller_comes_back_to_its_target_when_that_has_room_again() -> None:
    these = targets(4)
    way = ConsistentHash(HashConfig(load=1.25), [(target, 1) for target in these])
    scope = request("203.0.113.7")
    home = way.pick(scope)
    assert home is not None
    home.active = 10
    beside = {way.pick(scope) for _ in range(20)}
    assert home not in beside
    assert len(beside) == 1
    home.active = 0
    assert {way.pick(scope) for _ in range(20)} == {home}


def test_with_everybody_over_the_bound_the_first_one_is_asked() -> None:
    these = targets(3)
    way = ConsistentHash(HashConfig(load=1.05), [(target, 1) for target in these])
    way._share = 0.0
    way._picks = -100
    for target in these:
        target.active = 100
    assert way.pick(request("a")) is way.pick(request("a"))


def test_the_next_one_is_asked_again_where_the_first_failed() -> None:
    these = targets(6)
    made = pool(these, balancer="consistent_hash")
    scope, tried = request("203.0.113.7"), list[Target]()
    for _ in range(6):
        tried.append(made.pick(scope, tried))
    assert set(tried) == set(these)
    assert made.pick(scope, tried) in these
