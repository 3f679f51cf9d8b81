import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_gateway.build import Dial
from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from asgi_gateway_plugins.canary import bucket, share
from tests.plugins.kit import Upstreams, client, document, handshake, serving

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
