"""The states of a circuit against a model that remembers every call."""

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_gateway_plugins.breaker.circuit import CLOSED, HALF_OPEN, OPEN, SLICES, Circuit, Circuits, Rule
from tests.properties.profile import examples

STATES = {CLOSED: "closed", HALF_OPEN: "half-open", OPEN: "open"}


class Model:
    """What a circuit should do, said as plainly as possible. The window is ten slices of a second."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.state: Literal["closed", "half-open", "open"] = "closed"
        self.era = 0
        self.calls: list[tuple[int, bool, bool]] = []
        self.streak = 0
        self.until = 0.0
        self.trying = 0
        self.proved = 0

    def turn(self, state: Literal["closed", "half-open", "open"]) -> None:
        self.state, self.era, self.trying, self.proved = state, self.era + 1, 0, 0
        if state == "closed":
            self.calls, self.streak = [], 0

    def enter(self, now: float) -> int | None:
        """The era in which the call begins; None if it is refused."""
        if self.state == "open" and now >= self.until:
            self.turn("half-open")
        if self.state == "open" or (
            self.state == "half-open" and self.trying + self.proved >= self.rule.trials
        ):
            return None
        if self.state == "half-open":
            self.trying += 1
        return self.era

    def settle(self, era: int, now: float, failed: bool, slow: bool) -> None:
        if era != self.era:
            return
        if self.state == "half-open":
            self.trying -= 1
            if failed or (slow and self.rule.slow_rate is not None):
                self.trip(now)
            else:
                self.proved += 1
                if self.proved == self.rule.trials:
                    self.turn("closed")
            return
        self.calls = [call for call in self.calls if call[0] > int(now) - SLICES]
        self.calls.append((int(now), failed, slow))
        self.streak = self.streak + 1 if failed else 0
        if (failed or slow) and self.enough():
            self.trip(now)

    def enough(self) -> bool:
        rule, many = self.rule, len(self.calls)
        if rule.failures is not None and self.streak >= rule.failures:
            return True
        if many < rule.minimum_calls:
            return False
        failed, slow = (sum(call[which] for call in self.calls) for which in (1, 2))
        return (rule.failure_rate is not None and failed / many >= rule.failure_rate) or (
            rule.slow_rate is not None and slow / many >= rule.slow_rate
        )

    def trip(self, now: float) -> None:
        self.turn("open")
        self.until = now + self.rule.open_for

    def leave(self, era: int) -> None:
        if era == self.era and self.state == "half-open":
            self.trying -= 1


rates = st.none() | st.sampled_from([0.25, 0.5, 1.0])
rules = st.builds(
    Rule,
    failures=st.none() | st.integers(1, 4),
    failure_rate=rates,
    slow_rate=rates,
    minimum_calls=st.integers(1, 6),
    open_for=st.sampled_from([1.0, 5.0]),
    trials=st.integers(1, 3),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("enter")),
        st.tuples(st.just("settle"), st.integers(0, 20), st.booleans(), st.booleans()),
        st.tuples(st.just("settle"), st.integers(0, 20), st.just(True), st.just(False)),
        st.tuples(st.just("leave"), st.integers(0, 20)),
        st.tuples(st.just("wait"), st.sampled_from([0.5, 1.0, 3.0, 5.0, 11.0])),
    ),
    max_size=120,
)


@examples(150)
@given(rules, steps)
def test_a_circuit_does_what_the_model_does(rule: Rule, said: list[tuple[Any, ...]]) -> None:
    circuit, model, now = Circuit("upstream up", rule), Model(rule), 100.0
    running: list[tuple[int, int]] = []
    for what, *arguments in said:
        if what == "wait":
            now += arguments[0]
        elif what == "enter":
            ticket, era = circuit.enter(now), model.enter(now)
            assert bool(ticket) == (era is not None)
            if era is not None:
                running.append((ticket, era))
        elif running:
            index, *how = arguments
            ticket, era = running.pop(index % len(running))
            if what == "leave":
                circuit.leave(ticket)
                model.leave(era)
            else:
                failed, slow = how
                circuit.settle(ticket, now, failed=failed, slow=slow)
                model.settle(era, now, failed, slow)
        assert STATES[circuit.window.state] == model.state
        if model.state == "half-open":
            assert circuit.free == rule.trials - model.trying - model.proved


@examples(100)
@given(st.integers(1, 5), st.lists(st.booleans(), max_size=40))
def test_places_that_are_given_back_are_there_again(trials: int, leave: list[bool]) -> None:
    """P44: however many trials end without a word, exactly so many can begin."""
    circuit = Circuit("up", Rule(failures=1, open_for=1.0, trials=trials))
    circuit.settle(circuit.enter(0.0), 0.0, failed=True, slow=False)
    held: list[int] = []
    for gone in leave:
        if gone and held:
            circuit.leave(held.pop())
        elif ticket := circuit.enter(2.0):
            held.append(ticket)
        assert len(held) <= trials
    while ticket := circuit.enter(2.0):
        held.append(ticket)
    assert len(held) == trials


@pytest.mark.parametrize(
    ("after", "calls"), [(0.0, 4), (5.0, 4), (11.0, 1)], ids=["at once", "later", "too late"]
)
def test_an_answer_that_breaks_turns_a_good_call_into_a_failure(after: float, calls: int) -> None:
    circuit = Circuit("upstream up", Rule(failure_rate=0.5, minimum_calls=100))
    ticket = circuit.enter(100.0)
    places = [circuit.settle(ticket, 100.0, failed=False, slow=False, whole=False) for _ in range(4)]
    circuit.spoil(ticket, places[0], 100.0 + after)
    assert (circuit.window.calls, circuit.window.failed) == (calls, 1)
    # What was counted together is forgotten together.
    circuit.settle(ticket, 122.0, failed=False, slow=False)
    assert (circuit.window.calls, circuit.window.failed) == (1, 0)


def test_answers_that_break_are_failures_in_a_row() -> None:
    circuit = Circuit("upstream up", Rule(failures=2))
    for _ in range(2):
        ticket = circuit.enter(100.0)
        assert ticket
        place = circuit.settle(ticket, 100.0, failed=False, slow=False, whole=False)
        circuit.spoil(ticket, place, 100.0)
    assert not circuit.enter(100.0)


def test_an_answer_that_is_whole_ends_the_row() -> None:
    circuit = Circuit("upstream up", Rule(failures=2))
    ticket = circuit.enter(100.0)
    for _ in range(5):
        circuit.settle(ticket, 100.0, failed=True, slow=False)
        circuit.settle(ticket, 100.0, failed=False, slow=False, whole=False)
        circuit.finish(ticket)
    assert circuit.enter(100.0) == ticket


def test_a_trial_that_breaks_opens_it_again() -> None:
    circuit = Circuit("upstream up", Rule(failures=1, trials=2))
    circuit.settle(circuit.enter(100.0), 100.0, failed=True, slow=False)
    ticket = circuit.enter(111.0)
    place = circuit.settle(ticket, 111.0, failed=False, slow=False, whole=False)
    circuit.spoil(ticket, place, 111.0)
    assert not circuit.enter(111.0)


def test_a_late_result_says_nothing_about_another_state() -> None:
    circuit = Circuit("up", Rule(failures=2, open_for=10.0))
    late = [circuit.enter(0.0) for _ in range(5)]
    for ticket in late[:2]:
        circuit.settle(ticket, 1.0, failed=True, slow=False)
    assert circuit.window.state is OPEN
    circuit.settle(late[2], 9.0, failed=True, slow=False)
    assert circuit.enter(10.9) == 0
    trial = circuit.enter(11.0)
    circuit.settle(late[3], 11.0, failed=True, slow=False)
    circuit.settle(late[4], 11.0, failed=False, slow=False)
    assert circuit.window.state is HALF_OPEN
    circuit.settle(trial, 11.0, failed=False, slow=False)
    assert circuit.window.state is CLOSED


@pytest.mark.parametrize(("now", "wait"), [(0.0, 10), (0.1, 10), (9.0, 1), (9.5, 1), (20.0, 1)])
def test_the_wait_is_never_too_short_nor_a_second_too_long(now: float, wait: int) -> None:
    circuit = Circuit("up", Rule(failures=1, open_for=10.0))
    circuit.settle(circuit.enter(0.0), 0.0, failed=True, slow=False)
    assert circuit.retry_after(now) == wait


def test_after_recovery_the_share_grows_evenly() -> None:
    circuit = Circuit("up", Rule(failures=1, open_for=1.0, ramp=10.0))
    circuit.settle(circuit.enter(0.0), 0.0, failed=True, slow=False)
    circuit.settle(circuit.enter(1.0), 1.0, failed=False, slow=False)
    admitted = [
        sum(circuit.enter(1 + second + part / 1000) > 0 for part in range(1000)) for second in range(12)
    ]
    assert all(abs(many - (50 + 100 * second)) <= 1 for second, many in enumerate(admitted[:10]))
    assert admitted[10:] == [1000, 1000]


def test_failures_in_the_ramp_open_it_again() -> None:
    circuit = Circuit("up", Rule(failures=1, open_for=1.0, ramp=10.0))
    circuit.settle(circuit.enter(0.0), 0.0, failed=True, slow=False)
    circuit.settle(circuit.enter(1.0), 1.0, failed=False, slow=False)
    ticket = next(filter(None, (circuit.enter(6.0) for _ in range(5))))
    circuit.settle(ticket, 6.0, failed=True, slow=False)
    assert circuit.window.state is OPEN


def test_circuits_of_routes_are_bounded() -> None:
    circuits = Circuits(lambda route: Circuit(route, Rule(failures=1)))
    first = circuits.of("a")
    assert circuits.of("a") is first
    for number in range(Circuits.MOST + 5):
        circuits.of(str(number))
    assert circuits.of("a") is not first
