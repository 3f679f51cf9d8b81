import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from math import sqrt
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_gateway.asgi import Receive, Scope, Send
from asgi_gateway.build import Dial
from asgi_gateway.call import closed
from asgi_gateway.clock import Clock
from asgi_gateway.component import Build
from asgi_gateway.errors import ConfigError
from asgi_gateway.exchange import Exchange
from asgi_gateway.gateway import Gateway
from asgi_gateway.hookspecs import hookimpl
from asgi_gateway.showing import checked
from asgi_gateway.store import MemoryStore, Store
from asgi_gateway.strategy import Choose, Strategy
from asgi_gateway_plugins.canary.buckets import Draw, bucket, share
from asgi_gateway_plugins.canary.ramp import Ramp, Ramping
from asgi_gateway_plugins.canary.rollback import Guard, Rollback, Sample, Shared, Window, worse
from tests.plugins.kit import Hand, Upstreams, client, document, handshake, serving

PERCENT = st.decimals(0, 100, places=2).map(float)


def split(**options: Any) -> dict[str, Any]:
    return document({"canary": {"upstream": "next", **options}}, route={"websocket": True})


@given(caller=st.binary(), salt=st.binary(max_size=64), low=PERCENT, high=PERCENT)
def test_raising_the_percentage_moves_callers_one_way_only(
    caller: bytes, salt: bytes, low: float, high: float
) -> None:
    low, high = sorted((low, high))
    was, becomes = [bucket(salt, caller) < share(Dial("percent", percent)) for percent in (low, high)]
    assert becomes or not was


@given(percent=PERCENT)
def test_a_percentage_is_a_whole_number_of_buckets(percent: float) -> None:
    assert share(Dial("percent", percent)) == int(f"{percent:.2f}".replace(".", ""))


def test_one_percent_of_many_callers_is_one_percent() -> None:
    chosen = sum(bucket(b"salt", b"caller-%d" % number) < 100 for number in range(100_000))
    assert 800 <= chosen <= 1200


def test_a_caller_keeps_his_bucket_for_ever() -> None:
    assert [bucket(b"", caller) for caller in (b"", b"acme", b"203.0.113.7")] == [9876, 9185, 511]


def test_another_salt_chooses_others() -> None:
    callers = [b"%d" % number for number in range(2000)]
    one, two = [{caller for caller in callers if bucket(salt, caller) < 1000} for salt in (b"a", b"b")]
    assert len(one & two) < 60


async def test_a_caller_always_gets_the_same_upstream(upstreams: Upstreams) -> None:
    async with serving(upstreams, split(percent=50, by="header:X-User")) as http:
        for user in range(40):
            answers = {(await http.get("/", headers={"x-user": str(user)})).text for _ in range(3)}
            assert len(answers) == 1
    assert set(upstreams.labels) == {"main", "next"}


async def test_who_cannot_be_told_apart_stays(upstreams: Upstreams) -> None:
    async with serving(upstreams, split(percent=100, by="header:x-user")) as http:
        assert (await http.get("/")).text == "main"
        assert (await http.get("/", headers={"x-user": "a"})).text == "next"
    async with serving(upstreams, split(percent=100)) as http:
        assert (await http.get("/")).text == "main"


async def test_consumers_are_told_apart_behind_authentication(upstreams: Upstreams) -> None:
    declared = document(
        {"canary": {"upstream": "next", "percent": 100}},
        "key_auth",
        consumers=[{"name": "acme", "keys": ["k"]}],
    )
    async with serving(upstreams, declared) as http:
        assert (await http.get("/", headers={"x-api-key": "k"})).text == "next"


async def test_the_upstream_is_told_and_cannot_be_lied_to(upstreams: Upstreams) -> None:
    async with serving(upstreams, split(percent=100, by="ip")) as http:
        await http.get("/", headers=[("x-variant", "stable"), ("x_variant", "stable")])
    assert upstreams.headers("x-variant") == ["canary"]
    assert upstreams.headers("x_variant") == []


async def test_the_label_cannot_be_forged_on_a_route_that_is_not_split(upstreams: Upstreams) -> None:
    declared = split(percent=100, by="ip", rules=[{"headers": {"x-beta": "1"}}])
    declared["routes"].append({"name": "beside", "path": "/beside", "upstream": "main"})
    async with serving(upstreams, declared) as http:
        await http.get("/beside", headers=[("x-variant", "canary"), ("X_Variant", "canary"), ("x-a", "1")])
    assert [upstreams.headers(name) for name in ("x-variant", "x_variant", "x-a")] == [[], [], ["1"]]


@pytest.mark.parametrize(
    "asks",
    [
        {"force_header": "x-variant"},
        {"rules": [{"headers": {"X-Variant": "canary"}}]},
        {"by": "header:x-variant", "percent": 100},
    ],
)
async def test_a_label_that_callers_are_asked_for_is_heard(upstreams: Upstreams, asks: Any) -> None:
    async with serving(upstreams, split(**{"by": "ip", **asks})) as http:
        assert (await http.get("/", headers={"x-variant": "canary"})).text == "next"
        assert upstreams.headers("x-variant") == ["canary"]


async def test_testers_may_choose_where_that_is_said(upstreams: Upstreams) -> None:
    async with serving(upstreams, split(by="ip", force_header="x-go")) as http:
        assert (await http.get("/", headers={"x-go": "canary"})).text == "next"
        assert (await http.get("/", headers={"x-go": "nonsense"})).text == "main"
    async with serving(upstreams, split(by="ip", percent=100, force_header="x-go")) as http:
        assert (await http.get("/", headers={"x-go": "stable"})).text == "main"
    async with serving(upstreams, split(by="ip")) as http:
        assert (await http.get("/", headers={"x-go": "canary"})).text == "main"


async def test_a_cookie_is_issued_once_and_holds(upstreams: Upstreams) -> None:
    async with serving(upstreams, split(percent=50, by="cookie:who", cookie_age="1h")) as http:
        for _ in range(20):
            http.cookies.clear()
            first = await http.get("/")
            value, *attributes = first.headers["set-cookie"].split("; ")
            assert value.startswith("who=")
            assert attributes == ["Path=/", "Max-Age=3600", "HttpOnly", "SameSite=Lax"]
            second = await http.get("/")
            assert "set-cookie" not in second.headers
            assert second.text == first.text
    assert set(upstreams.labels) == {"main", "next"}


@pytest.mark.parametrize("cookie", ["who=", "who=a b", "who=" + "a" * 200, "whoever=1"])
async def test_a_cookie_that_was_never_issued_is_replaced(upstreams: Upstreams, cookie: str) -> None:
    async with serving(upstreams, split(percent=50, by="cookie:who")) as http:
        assert "set-cookie" in (await http.get("/", headers={"cookie": cookie})).headers


async def test_random_rolls_for_each_request(upstreams: Upstreams) -> None:
    gateway = Gateway.parse(split(percent=30, by="random"), plugins=[upstreams], dice=random.Random(7))
    async with gateway.lifespan(), client(gateway) as http:
        for _ in range(300):
            await http.get("/")
    assert 60 <= Counter(upstreams.labels)["next"] <= 120


async def test_the_percentage_is_turned_while_requests_run(upstreams: Upstreams) -> None:
    gateway = Gateway.parse(split(percent=0, by="ip"), plugins=[upstreams])
    async with gateway.lifespan(), client(gateway) as http:
        assert (await http.get("/")).text == "main"
        gateway.dial("route/main/canary/percent").set(100)
        assert (await http.get("/")).text == "next"
        with pytest.raises(ValueError, match="100"):
            gateway.dial("route/main/canary/percent").set(101)


async def test_a_handshake_is_split_too(upstreams: Upstreams) -> None:
    gateway = Gateway.parse(split(percent=100, by="ip"), plugins=[upstreams])
    await handshake(gateway)
    assert upstreams.labels == ["next"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"upstream": "nxt"}, "did you mean 'next'"),
        ({"upstream": "next", "percent": 101}, "100"),
        ({"upstream": "next", "percent": 0.001}, "more than two decimals"),
        ({"upstream": "next", "by": "moon"}, "'moon' is none of consumer, ip, header:<name>"),
        ({}, "upstream"),
    ],
)
def test_a_wrong_split_is_told_at_once(upstreams: Upstreams, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Gateway.parse(document({"canary": options}), plugins=[upstreams])
    assert says in str(raised.value)


# Several variants

VARIANTS = [{"name": "blue", "upstream": "next", "weight": 3}, {"name": "green", "weight": 1}]


def shares(weights: Sequence[tuple[str, int]], callers: int = 20_000) -> Counter[int]:
    draw = Draw(b"salt", weights)
    return Counter(draw(b"caller-%d" % number) for number in range(callers))


@pytest.mark.parametrize("weights", [(1, 1), (1, 9), (500, 300, 200), (1, 0, 2), (1, 2, 3, 4, 5)])
def test_variants_get_their_weights_within_three_sigma(weights: tuple[int, ...]) -> None:
    callers = 20_000
    counted = shares([(f"v{place}", weight) for place, weight in enumerate(weights)], callers)
    for place, weight in enumerate(weights):
        part = weight / sum(weights)
        assert abs(counted[place] - callers * part) <= 3 * sqrt(callers * part * (1 - part))


@given(weights=st.lists(st.integers(1, 50), min_size=2, max_size=5), more=st.integers(1, 50), data=st.data())
def test_a_growing_weight_only_moves_callers_to_its_variant(
    weights: list[int], more: int, data: st.DataObject
) -> None:
    grown = data.draw(st.integers(0, len(weights) - 1))
    before = Draw(b"salt", [(f"v{place}", weight) for place, weight in enumerate(weights)])
    weights[grown] += more
    after = Draw(b"salt", [(f"v{place}", weight) for place, weight in enumerate(weights)])
    for number in range(50):
        caller = b"%d" % number
        assert after(caller) in (before(caller), grown)


@given(steps=st.lists(PERCENT, min_size=2, max_size=6))
def test_who_is_in_keeps_the_variant_over_all_steps(steps: list[float]) -> None:
    draw = Draw(b"salt", [("a", 1), ("b", 2)])
    for number in range(20):
        caller = b"%d" % number
        seen = [
            draw(caller) if bucket(b"salt", caller) < share(Dial("percent", percent)) else None
            for percent in sorted(steps)
        ]
        inside = [variant for variant in seen if variant is not None]
        assert len(set(inside)) <= 1
        assert seen == [None] * (len(seen) - len(inside)) + inside


@pytest.mark.parametrize("percent", [0.1, 1, 5, 25, 50, 99])
def test_a_percentage_is_met_within_three_sigma(percent: float) -> None:
    callers, limit = 100_000, share(Dial("percent", percent))
    chosen = sum(bucket(b"salt", b"user-%d" % number) < limit for number in range(callers))
    part = percent / 100
    assert abs(chosen - callers * part) <= 3 * sqrt(callers * part * (1 - part))


async def test_every_variant_is_labelled_and_may_stay_on_the_route(upstreams: Upstreams) -> None:
    declared = document(
        {"canary": {"variants": VARIANTS, "percent": 80, "by": "header:x-user"}}, components=["request_id"]
    )
    async with serving(upstreams, declared) as http:
        for user in range(200):
            await http.get("/", headers={"x-user": str(user)})
    seen = Counter(
        (scope["label"], *[value for name, value in scope["headers"] if name == b"x-variant"])
        for scope in upstreams.seen
    )
    assert set(seen) == {("next", b"blue"), ("main", b"green"), ("main", b"stable")}
    assert seen["next", b"blue"] > seen["main", b"green"]


async def test_a_tester_names_a_variant(upstreams: Upstreams) -> None:
    declared = document({"canary": {"variants": VARIANTS, "by": "ip", "force_header": "x-go"}})
    async with serving(upstreams, declared) as http:
        assert (await http.get("/", headers={"x-go": "blue"})).text == "next"
        await http.get("/", headers={"x-go": "green"})
        assert upstreams.headers("x-variant") == ["green"]


# Rules

RULES: list[Any] = [
    {"headers": {"x-beta": "1"}},
    {"cookies": {"beta": "*"}},
    {"groups": ["testers"], "headers": {"x-device": "*"}},
    {"consumers": ["acme"], "variant": "stable"},
]


@pytest.mark.parametrize(
    ("headers", "label"),
    [
        ({"x-beta": "1"}, "next"),
        ({"x-beta": "2"}, "main"),
        ({"cookie": "a=b; beta=x"}, "next"),
        ({"cookie": "beta="}, "main"),
        ({"x-api-key": "t", "x-device": "watch"}, "next"),
        ({"x-api-key": "t"}, "main"),
        ({"x-api-key": "a"}, "main"),
        ({"x-api-key": "a", "x-beta": "1"}, "next"),
    ],
    ids=str,
)
async def test_rules_choose_before_the_percentage(
    headers: dict[str, str], label: str, upstreams: Upstreams
) -> None:
    declared = document(
        {"canary": {"upstream": "next", "rules": RULES}},
        {"key_auth": {}},
        consumers=[
            {"name": "acme", "keys": ["a"]},
            {"name": "tess", "keys": ["t"], "groups": ["testers"]},
            {"name": "else", "keys": ["e"]},
        ],
    )
    async with serving(upstreams, declared) as http:
        assert (await http.get("/", headers={"x-api-key": "e"} | headers)).text == label


async def test_a_rule_keeps_some_out_at_a_hundred_percent(upstreams: Upstreams) -> None:
    rules = [{"headers": {"x-old": "*"}, "variant": "stable"}]
    async with serving(upstreams, split(percent=100, by="ip", rules=rules)) as http:
        assert (await http.get("/")).text == "next"
        assert (await http.get("/", headers={"x-old": ""})).text == "main"


# A strategy of one's own


class Employees(Strategy, name="employees"):
    """Who works for us is a canary."""

    domain: str
    """The domain of our addresses."""

    def open(self, build: Build) -> Choose:
        domain = self.domain.encode()

        def choose(scope: Scope, exchange: Exchange) -> str:
            mail = dict(scope["headers"]).get(b"x-mail", b"")
            return "canary" if mail.endswith(domain) else "stable" if mail else ""

        return choose


class Strategies:
    @hookimpl
    def gateway_canary_strategies(self) -> list[type[Strategy]]:
        return [Employees]


async def test_a_plugin_chooses(upstreams: Upstreams) -> None:
    declared = split(
        strategy={"employees": {"domain": "@a.example"}}, rules=[{"headers": {"x-beta": "1"}}], percent=0
    )
    gateway = Gateway.parse(declared, plugins=[upstreams, Strategies()])
    async with gateway.lifespan(), client(gateway) as http:
        for headers, label in (
            ({"x-mail": "eve@a.example"}, "next"),
            ({"x-mail": "eve@b.example", "x-beta": "1"}, "main"),
            ({"x-beta": "1"}, "next"),
            ({}, "main"),
        ):
            assert (await http.get("/", headers=headers)).text == label
    dumped = gateway.config.model_dump(mode="json")["routes"][0]["components"][0]["canary"]
    assert dumped["strategy"] == {"employees": {"domain": "@a.example"}}


@pytest.mark.parametrize(
    ("strategy", "says"),
    [
        ("employes", "no strategy is called 'employes' (did you mean 'employees'?)"),
        ("employees", "employees.domain"),
        ({"employees": {"domain": "a", "x": 1}}, "employees.x"),
    ],
    ids=str,
)
def test_a_wrong_strategy_is_told(strategy: Any, says: str, upstreams: Upstreams) -> None:
    with pytest.raises(ConfigError) as raised:
        Gateway.parse(split(strategy=strategy), plugins=[upstreams, Strategies()])
    assert says in str(raised.value)


# A target that is down


async def test_callers_stay_while_the_canary_is_down(upstreams: Upstreams) -> None:
    declared = split(percent=100, by="ip", force_header="x-go")
    declared["upstreams"]["next"] = {"targets": ["http://127.0.0.1:9"]}
    gateway = Gateway.parse(declared, plugins=[upstreams])
    (pool,) = [function.__self__ for function in gateway._live.on_end]  # type: ignore[attr-defined]
    async with gateway.lifespan(), client(gateway) as http:
        ((target, _),) = pool.targets
        target.mark(healthy=False)
        assert (await http.get("/")).text == "main"
        assert upstreams.headers("x-variant") == ["stable"]
        assert (await http.get("/", headers={"x-go": "canary"})).status_code == 502
        target.mark(healthy=True)
        assert (await http.get("/")).status_code == 502


# Ramps

START = "2026-11-24T09:00:00Z"
RAMP = {
    "start": START,
    "steps": [{"percent": 1, "hold": "10m"}, {"percent": 50, "hold": "1h"}, {"percent": 100}],
}
AT = datetime.fromisoformat(START).timestamp()


async def test_a_ramp_rises_with_the_time_and_survives_reloads_and_restarts(upstreams: Upstreams) -> None:
    clock = Clock(lambda: 1.0, lambda: now)
    declared = split(by="ip", percent=0, ramp=RAMP)
    gateways = [Gateway.parse(declared, plugins=[upstreams], clock=clock) for _ in range(2)]
    now = AT - 1
    for later, percent in ((0, 0), (1, 1), (600, 1), (601, 50), (4200, 50), (4201, 100), (1e7, 100)):
        now = AT - 1 + later
        for gateway in (*gateways, Gateway.parse(declared, plugins=[upstreams], clock=clock)):
            async with gateway.lifespan(), client(gateway) as http:
                await http.get("/")
                assert gateway.dial("route/main/canary/percent").value == percent
                await gateway.reload(gateway.config)
                await http.get("/")
                assert gateway.dial("route/main/canary/percent").value == percent


@given(
    steps=st.lists(st.tuples(PERCENT, st.integers(1, 1000)), min_size=1, max_size=6),
    times=st.lists(st.integers(-10, 7000), min_size=1, max_size=20),
)
def test_a_ramp_never_falls_and_ends_at_its_last_step(
    steps: list[tuple[float, int]], times: list[int]
) -> None:
    rising = sorted(percent for percent, _ in steps)
    declared = [
        {"percent": percent, "hold": f"{hold}s"} for percent, (_, hold) in zip(rising, steps, strict=True)
    ]
    dial = Dial("percent", 0.0, 0, 100)
    ramping = Ramping(Ramp.model_validate({"start": START, "steps": declared}), 0.0, dial)
    seen = []
    for later in [*sorted(times), 1_000_000]:
        if AT + later >= ramping.next:
            ramping.turn(AT + later)
        other = Dial("percent", 0.0, 0, 100)
        Ramping(Ramp.model_validate({"start": START, "steps": declared}), 0.0, other).turn(AT + later)
        assert other.value == dial.value  # whoever starts in the middle has the same step
        seen.append(dial.value)
    assert seen == sorted(seen)
    assert seen[-1] == rising[-1]


async def test_a_hand_on_the_dial_ends_a_ramp(upstreams: Upstreams, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock(lambda: 1.0, lambda: now)
    now = AT
    gateway = Gateway.parse(split(by="ip", ramp=RAMP), plugins=[upstreams], clock=clock)
    async with gateway.lifespan(), client(gateway) as http:
        await http.get("/")
        dial = gateway.dial("route/main/canary/percent")
        dial.set(7)
        now = AT + 100_000
        with caplog.at_level("INFO", "asgi_gateway"):
            await http.get("/")
        assert (dial.value, "by hand: the ramp is over" in caplog.text) == (7, True)
        dial.set(1)
        await http.get("/")
        assert dial.value == 1


# Rollback


class Sick(Upstreams):
    """`next` answers 500 to so many of ten requests, and takes its time."""

    def __init__(self, clock: Hand, errors: int = 0, seconds: float = 0.0) -> None:
        super().__init__()
        self.clock, self.errors, self.seconds = clock, errors, seconds

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.clock.seconds += 0.01
        status = 200
        if scope["label"] == "next":
            self.clock.seconds += self.seconds
            status = 500 if self.labels.count("next") % 10 < self.errors else 200
        self.seen.append(scope)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": scope["label"].encode()})


GUARDED = {"minimum": 20, "window": "10m"}


@pytest.mark.parametrize(
    ("errors", "seconds", "rollback", "back", "says"),
    [
        (0, 0.0, GUARDED | {"slower": 2}, False, ""),
        (5, 0.0, GUARDED, True, "requests failed, 0.0%"),
        (5, 0.0, GUARDED | {"errors": 60}, False, ""),
        (5, 0.0, GUARDED | {"minimum": 1000}, False, ""),
        (0, 0.05, GUARDED | {"errors": None, "slower": 2}, True, "its answers take 60 ms"),
        (0, 0.005, GUARDED | {"errors": None, "slower": 2}, False, ""),
    ],
    ids=str,
)
async def test_a_canary_that_does_worse_is_taken_back(
    errors: int,
    seconds: float,
    rollback: dict[str, Any],
    back: bool,
    says: str,
    clock: Hand,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sick = Sick(clock, errors, seconds)
    declared = split(by="header:x-user", percent=50, rollback=rollback, force_header="x-go")
    declared["routes"][0]["components"][0]["canary"]["rules"] = [{"headers": {"x-beta": "1"}}]
    gateway = Gateway.parse(declared, plugins=[sick], clock=clock)
    async with gateway.lifespan(), client(gateway) as http:
        for user in range(150):
            await http.get("/", headers={"x-user": str(user)})
        dial = gateway.dial("route/main/canary/rolled_back/canary")
        assert (dial.value, says in caplog.text) == (back, True)
        if back:
            count = len(sick.seen)
            for user in range(20):
                await http.get("/", headers={"x-user": str(user), "x-beta": "1"})
            assert set(sick.labels[count:]) == {"main"}
            assert (await http.get("/", headers={"x-go": "canary"})).text == "next"
            await gateway.reload(gateway.config)
            assert gateway.dial("route/main/canary/rolled_back/canary").value
            dial.set(False)
            assert (await http.get("/", headers={"x-beta": "1"})).text == "next"


async def test_a_rollback_stops_the_ramp_and_a_new_file_begins_anew(clock: Hand) -> None:
    sick = Sick(clock, 10)
    start = datetime.fromtimestamp(clock.time() - 10, UTC).isoformat()
    ramp = {"start": start, "steps": [{"percent": 50, "hold": "1h"}, {"percent": 100}]}
    declared = split(by="header:x-user", rollback=GUARDED, ramp=ramp)
    gateway = Gateway.parse(declared, plugins=[sick], clock=clock)
    async with gateway.lifespan(), client(gateway) as http:
        for user in range(100):
            await http.get("/", headers={"x-user": str(user)})
        closed, percent = (
            gateway.dial(f"route/main/canary/{name}") for name in ("rolled_back/canary", "percent")
        )
        assert closed.value
        clock.seconds += 100_000
        await http.get("/", headers={"x-user": "1"})
        assert percent.value == 50
        declared["routes"][0]["components"][0]["canary"]["percent"] = 1
        await gateway.reload(Gateway.parse(declared, plugins=[sick], clock=clock).config)
        assert not gateway.dial("route/main/canary/rolled_back/canary").value


@given(
    counts=st.tuples(st.integers(0, 400), st.integers(0, 400), st.integers(0, 400), st.integers(0, 400)),
    minimum=st.integers(10, 200),
)
def test_nothing_is_rolled_back_below_the_minimum_or_for_a_better_one(
    counts: tuple[int, int, int, int], minimum: int
) -> None:
    mine, stable = Sample(), Sample()
    for sample, good, bad in ((mine, *counts[:2]), (stable, *counts[2:])):
        for failed in [False] * good + [True] * bad:
            sample.add(failed, None)
    why = worse(mine, stable, Rollback(errors=0, minimum=minimum))
    few = min(mine.requests, stable.requests) < minimum
    if few or mine.errors * stable.requests <= stable.errors * mine.requests:
        assert not why


def test_chance_alone_rolls_nothing_back() -> None:
    dice, backs = random.Random(5), 0
    for _ in range(300):
        mine, stable = Sample(), Sample()
        for sample, requests in ((mine, 150), (stable, 1500)):
            for _ in range(requests):
                sample.add(dice.random() < 0.1, None)
        backs += bool(worse(mine, stable, Rollback(errors=0)))
    assert backs <= 3


def test_a_window_forgets() -> None:
    window = Window(10.0)
    for second in range(100):
        window.at(float(second)).current.add(False, None)
        assert window.at(float(second)).whole.requests <= 20
    assert window.at(1000.0).whole.requests == 0


async def test_what_says_nothing_about_an_upstream_is_not_counted(clock: Hand) -> None:
    guard = Guard("route main", Rollback(), {}, clock.monotonic, lambda: None)
    for outcome, calls, cause in (("caller_left", 1, ""), ("answered", 0, ""), ("aborted", 1, "shutdown")):
        exchange = Exchange({"type": "http"}, closed, 0.0)
        exchange.calls = [None] * calls  # type: ignore[list-item]
        exchange.outcome, exchange.cause = outcome, cause  # type: ignore[assignment]
        guard.watch(exchange, "stable")
        exchange.end(1.0)
    assert guard._windows["stable"].at(1.0).whole.requests == 0


class Common(MemoryStore, schemes=("common",)):
    """One store for all gateways of this process."""

    shared = True
    one: ClassVar["Common | None"] = None

    @classmethod
    def open(cls, url: str, *, timeout: float, now: Callable[[], float]) -> "Common":
        if cls.one is None:
            cls.one = cls(now)
        return cls.one


class Stores:
    @hookimpl
    def gateway_stores(self) -> list[type[Store]]:
        return [Common]


async def test_workers_with_a_store_roll_back_together(clock: Hand) -> None:
    Common.one = None
    sick = Sick(clock, 10)
    declared = split(by="header:x-user", percent=50, rollback=GUARDED) | {"store": "common://"}

    def worker() -> tuple[Gateway, Callable[[], Awaitable[None]], Dial[bool]]:
        gateway = Gateway.parse(declared, plugins=[sick, Stores()], clock=clock)
        assert not gateway.warnings
        kept = gateway._kernel.resources._kept.values()
        (shared,) = [each.value for each in kept if isinstance(each.value, Shared)]
        return gateway, shared.follow, gateway.dial("route/main/canary/rolled_back/canary")

    (one, follow, mine), (_, other, its) = worker(), worker()
    async with one.lifespan(), client(one) as http:
        for user in range(100):
            await http.get("/", headers={"x-user": str(user)})
        assert (mine.value, its.value) == (True, False)
        await follow()
        await other()
        assert its.value
        _, late, new = worker()
        await late()
        assert new.value
        its.set(False)
        for each in (other, follow, late):
            await each()
        assert not any(dial.value for dial in (mine, its, new))
    Common.one = None


# What people see


def test_check_shows_where_a_canary_leads(upstreams: Upstreams) -> None:
    declared = document(
        {"canary": {"variants": VARIANTS, "percent": 5, "by": "ip", "ramp": RAMP}},
        {"canary": {"upstream": "next", "percent": 1, "enabled": False}},
    )
    plan = Gateway.parse(declared, plugins=[upstreams]).plan
    assert list(checked(plan, ())) == [
        "main: any /*",
        "  canary → main",
        "  canary → next: blue, weight 3 of 4 in 5 % by ip, 100 % at the end of the ramp",
        "",
        "upstream main: recording",
        "upstream next: recording",
    ]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"upstream": "next", "variants": VARIANTS}, "either an upstream or variants"),
        ({"variants": [{"name": "stable"}]}, "'stable' is taken"),
        ({"variants": [{"name": "a"}, {"name": "a"}]}, "'a' is taken"),
        ({"variants": [{"name": "a", "weight": 0}]}, "no variant has a weight above 0"),
        ({"variants": [{"name": "a", "upstream": "nxt"}]}, "did you mean 'next'"),
        ({"upstream": "next", "rules": [{}]}, "a rule has a condition"),
        ({"upstream": "next", "rules": [{"groups": ["a"], "variant": "b"}]}, "no variant is called 'b'"),
        ({"upstream": "next", "rollback": {"errors": None}}, "a rollback has a reason"),
        ({"upstream": "next", "ramp": {"start": "2026-11-24T09:00:00", "steps": [{"percent": 1}]}}, "start"),
        (
            {"upstream": "next", "ramp": {"start": START, "steps": [{"percent": 5}, {"percent": 1}]}},
            "moves callers back",
        ),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_told_at_once(
    upstreams: Upstreams, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        Gateway.parse(document({"canary": options}), plugins=[upstreams])
    assert says in str(raised.value)
