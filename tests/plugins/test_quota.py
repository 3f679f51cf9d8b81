from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from asgi_gateway_plugins.quota import Unit, period_at
from tests.plugins.kit import Hand, Upstreams, document, handshake, serving
from tests.redis_server import RedisServer

BERLIN = ZoneInfo("Europe/Berlin")


def limited(**options: Any) -> dict[str, Any]:
    more = options.pop("more", {})
    return document({"quota": {"by": "ip", **options}}, route={"websocket": True}, **more)


async def test_a_quota_begins_anew_with_the_calendar(upstreams: Upstreams) -> None:
    clock = Hand()
    wall = datetime(2027, 1, 31, 23, 59, 30, tzinfo=UTC).timestamp() - clock.seconds
    clock.time = lambda: clock.seconds + wall
    async with serving(upstreams, limited(limit=2), clock) as http:
        answers = [await http.get("/") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
        assert answers[0].headers["ratelimit-policy"] == '"month";q=2;w=2592000'
        assert answers[0].headers["ratelimit"] == '"month";r=1;t=30'
        assert answers[2].json()["reason"] == "quota_exceeded"
        assert answers[2].headers["retry-after"] == "30"
        clock.seconds += 29.5
        assert (await http.get("/")).headers["retry-after"] == "1"
        clock.seconds += 0.5
        assert (await http.get("/")).status_code == 200


@given(moment=st.integers(1_600_000_000, 2_000_000_000), unit=st.sampled_from(["day", "week", "month"]))
def test_periods_follow_each_other(moment: int, unit: Unit) -> None:
    for zone in (UTC, BERLIN):
        period = period_at(moment, unit, zone)
        assert period.begin <= moment < period.end
        assert period_at(period.begin, unit, zone) == period == period_at(period.end - 1, unit, zone)
        following = period_at(period.end, unit, zone)
        assert following.begin == period.end
        assert following.name != period.name


def test_a_day_that_loses_an_hour_is_a_day() -> None:
    noon = datetime(2027, 3, 28, 12, tzinfo=BERLIN).timestamp()
    period = period_at(noon, "day", BERLIN)
    assert period.end - period.begin == 23 * 3600


async def test_what_was_used_survives_a_restart_with_a_store(
    upstreams: Upstreams, redis: RedisServer
) -> None:
    declared = limited(limit=3, more={"store": {"url": redis.url, "timeout": "5s"}})
    for statuses in ([200, 200], [200, 429]):
        async with serving(upstreams, declared) as http:
            assert [(await http.get("/")).status_code for _ in range(2)] == statuses
    # Who raises it forgets nothing.
    async with serving(upstreams, {**limited(limit=4), "store": declared["store"]}) as http:
        assert [(await http.get("/")).status_code for _ in range(2)] == [200, 429]


async def test_tiers_and_costs(upstreams: Upstreams) -> None:
    options = {"limit": 4, "cost": 2, "by": "consumer", "tiers": [{"groups": ["gold"], "limit": 6}]}
    declared = document(
        "key_auth",
        {"quota": options},
        consumers=[{"name": "a", "keys": ["a"], "groups": ["gold"]}, {"name": "b", "keys": ["b"]}],
    )
    async with serving(upstreams, declared) as http:
        for key, many in (("a", 3), ("b", 2)):
            answers = [await http.get("/", headers={"x-api-key": key}) for _ in range(5)]
            assert [answer.status_code for answer in answers] == [200] * many + [429] * (5 - many)


@pytest.mark.parametrize(
    ("on_error", "statuses"), [("open", [200] * 3), ("closed", [503] * 3), ("local", [200, 429, 429])]
)
async def test_without_the_store_the_component_says_what_happens(
    upstreams: Upstreams, on_error: str, statuses: list[int]
) -> None:
    declared = limited(limit=1, on_error=on_error, more={"store": "redis://127.0.0.1:1"})
    async with serving(upstreams, declared) as http:
        assert [(await http.get("/")).status_code for _ in range(3)] == statuses


async def test_a_handshake_counts_a_reload_forgets_nothing_and_reports_let_pass(upstreams: Upstreams) -> None:
    gateway = Gateway.parse(limited(limit=1), plugins=[upstreams])
    async with gateway.lifespan():
        assert (await handshake(gateway))[0]["type"] == "websocket.accept"
        await gateway.reload(Gateway.parse(limited(limit=1, headers="none"), plugins=[upstreams]).config)
        assert (await handshake(gateway))[0]["status"] == 429
    async with serving(upstreams, limited(limit=1, mode="report")) as http:
        assert [(await http.get("/")).status_code for _ in range(3)] == [200] * 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"limit": 1, "zone": "Moon/Crater"}, "'Moon/Crater' is not a time zone"),
        ({"limit": 1, "cost": 2}, "cost is more than the whole quota"),
    ],
)
def test_a_wrong_quota_is_told_at_once(upstreams: Upstreams, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Gateway.parse(limited(**options), plugins=[upstreams])
