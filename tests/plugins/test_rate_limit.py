import asyncio
from collections import Counter
from typing import Any

import pytest

from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from tests.plugins.kit import Hand, Upstreams, client, document, handshake, serving

WINDOWS = ["fixed", "sliding", "moving"]


def limited(**options: Any) -> dict[str, Any]:
    return document({"rate_limit": options}, route={"websocket": True})


async def test_what_is_too_much_is_refused(upstreams: Upstreams, clock: Hand) -> None:
    async with serving(upstreams, limited(limit="2/minute"), clock) as http:
        answers = [await http.get("/") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[2].json()["reason"] == "rate_limited"
        assert answers[2].json()["component"] == "rate_limit"
        assert answers[2].headers["content-type"] == "application/problem+json"
        assert 60 <= int(answers[2].headers["retry-after"]) <= 61
        clock.seconds += int(answers[2].headers["retry-after"])
        assert (await http.get("/")).status_code == 200
    assert len(upstreams.seen) == 3


@pytest.mark.parametrize("window", WINDOWS)
async def test_a_thousand_at_once_admit_exactly_the_limit(upstreams: Upstreams, window: str) -> None:
    async with serving(upstreams, limited(limit="100/hour", window=window)) as http:
        answers = await asyncio.gather(*(http.get("/") for _ in range(1000)))
    assert Counter(answer.status_code for answer in answers) == {200: 100, 429: 900}
    assert len(upstreams.seen) == 100


@pytest.mark.parametrize("window", WINDOWS)
async def test_what_one_rate_refuses_counts_for_none(upstreams: Upstreams, clock: Hand, window: str) -> None:
    declared = limited(limits=["3/minute", "2/second"], window=window)
    async with serving(upstreams, declared, clock) as http:
        burst = [await http.get("/") for _ in range(10)]
        assert Counter(answer.status_code for answer in burst) == {200: 2, 429: 8}
        clock.seconds += 2.5
        assert [(await http.get("/")).status_code for _ in range(2)] == [200, 429]


async def test_each_address_has_its_own_limit(upstreams: Upstreams) -> None:
    gateway = Gateway.parse(limited(limit="1/hour"), plugins=[upstreams])

    async def ask(address: str) -> int:
        async with client(gateway, address) as http:
            return (await http.get("/", headers={"x-forwarded-for": "198.51.100.9"})).status_code

    assert [await ask(address) for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2")] == [200, 429, 200]
    # One household has a whole /64.
    assert [await ask(address) for address in ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1")] == [
        200,
        429,
        200,
    ]
    # The same IPv4 address, as a socket for both families shows it.
    assert await ask("::ffff:192.0.2.1") == 429


async def test_a_consumer_has_one_limit_wherever_it_calls_from(upstreams: Upstreams) -> None:
    declared = document(
        {"key_auth": {"mode": "report"}},
        {"rate_limit": {"limit": "1/hour", "by": "consumer"}},
        consumers=[{"name": "acme", "keys": ["a"]}, {"name": "bold", "keys": ["b"]}],
    )
    gateway = Gateway.parse(declared, plugins=[upstreams])

    async def ask(address: str, key: str) -> int:
        async with client(gateway, address) as http:
            return (await http.get("/", headers={"x-api-key": key})).status_code

    assert [await ask("192.0.2.1", "a"), await ask("192.0.2.2", "a"), await ask("192.0.2.1", "b")] == [
        200,
        429,
        200,
    ]
    assert [await ask("192.0.2.1", "?"), await ask("192.0.2.1", "?"), await ask("192.0.2.2", "?")] == [
        200,
        429,
        200,
    ]


async def test_who_cannot_be_counted_may_be_refused(upstreams: Upstreams) -> None:
    async with serving(upstreams, limited(limit="1/hour", by="header:x-app", unidentified="refuse")) as http:
        assert (await http.get("/", headers={"x-app": "a"})).status_code == 200
        refused = await http.get("/")
    assert (refused.status_code, refused.json()["reason"]) == (403, "unidentified")


async def test_a_route_has_one_limit_for_everybody(upstreams: Upstreams) -> None:
    gateway = Gateway.parse(limited(limit="1/hour", by="route"), plugins=[upstreams])
    async with client(gateway, "192.0.2.1") as one, client(gateway, "192.0.2.2") as two:
        assert [(await http.get("/")).status_code for http in (one, two)] == [200, 429]


async def test_routes_count_for_themselves_unless_they_share_a_group(upstreams: Upstreams) -> None:
    def two_routes(**options: Any) -> dict[str, Any]:
        declared = document({"rate_limit": {"limit": "1/hour", **options}}, path="/a")
        declared["routes"].append({**declared["routes"][0], "name": "other", "path": "/b"})
        return declared

    async with serving(upstreams, two_routes()) as http:
        assert [(await http.get(path)).status_code for path in ("/a", "/b")] == [200, 200]
    async with serving(upstreams, two_routes(group="api")) as http:
        assert [(await http.get(path)).status_code for path in ("/a", "/b")] == [200, 429]


async def test_fields_tell_where_a_caller_stands(upstreams: Upstreams, clock: Hand) -> None:
    async with serving(upstreams, limited(limits=["10/second", "100/minute"], headers="both"), clock) as http:
        await http.get("/")
        answer = await http.get("/")
    assert answer.headers["ratelimit-policy"] == '"second";q=10;w=1, "minute";q=100;w=60'
    assert answer.headers["ratelimit"] == '"second";r=8;t=1, "minute";r=98;t=60'
    assert [answer.headers[f"ratelimit-{name}"] for name in ("limit", "remaining", "reset")] == [
        "10",
        "8",
        "1",
    ]


@pytest.mark.parametrize(
    ("kind", "there"),
    [
        ("draft", {"ratelimit", "ratelimit-policy"}),
        ("legacy", {"ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"}),
        ("none", set()),
    ],
)
async def test_the_fields_are_chosen(upstreams: Upstreams, kind: str, there: set[str]) -> None:
    async with serving(upstreams, limited(limit="1/hour", headers=kind)) as http:
        for status in (200, 429):
            answer = await http.get("/")
            assert answer.status_code == status
            assert {name for name in answer.headers if name.startswith("ratelimit")} == there
            assert ("retry-after" in answer.headers) == (status == 429)


async def test_reporting_lets_pass(upstreams: Upstreams) -> None:
    async with serving(upstreams, limited(limit="1/hour", mode="report")) as http:
        answers = [await http.get("/") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert "retry-after" not in answers[2].headers


async def test_a_handshake_is_counted_and_refused(upstreams: Upstreams) -> None:
    gateway = Gateway.parse(limited(limit="1/hour"), plugins=[upstreams])
    assert (await handshake(gateway))[0]["type"] == "websocket.accept"
    refused = (await handshake(gateway))[0]
    assert (refused["type"], refused["status"]) == ("websocket.http.response.start", 429)
    async with client(gateway) as http:
        assert (await http.get("/")).status_code == 429


async def test_counters_survive_a_reload_that_leaves_the_rule_alone(upstreams: Upstreams) -> None:
    def config(**options: Any) -> Any:
        return Gateway.parse(limited(**options), plugins=[upstreams]).config

    gateway = Gateway(config(limit="1/hour"))
    async with gateway.lifespan(), client(gateway) as http:
        assert (await http.get("/")).status_code == 200
        await gateway.reload(config(limit="1/hour", headers="none"))
        assert (await http.get("/")).status_code == 429
        await gateway.reload(config(limit="2/hour"))
        assert (await http.get("/")).status_code == 200


@pytest.mark.parametrize("window", WINDOWS)
async def test_a_clock_that_is_set_changes_nothing(upstreams: Upstreams, window: str) -> None:
    clock = Hand()
    async with serving(upstreams, limited(limit="1/hour", window=window), clock) as http:
        assert (await http.get("/")).status_code == 200
        for jump in (7200, -7200):
            clock.time = lambda jump=jump: 1_700_000_000.0 + jump
            assert (await http.get("/")).status_code == 429


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "limit: 100/minute"),
        ({"limit": "1/minute", "limits": ["1/second"]}, "write either"),
        ({"limits": ["1/minute", "2/minute"]}, "same period"),
        ({"limit": "often"}, "'often' is not a rate"),
        ({"limit": "1/minute", "by": "moon"}, "'moon' is none of ip, consumer, group"),
        ({"limit": "100/minute", "window": "moving", "max_keys": 10}, "max_keys"),
    ],
)
def test_a_wrong_limit_is_told_at_once(upstreams: Upstreams, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Gateway.parse(limited(**options), plugins=[upstreams])
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("by", "asked"),
    [
        ("path:id", ["/a?k=1", "/a?k=2", "/b?k=1"]),
        ("query:k", ["/?k=1", "/x?k=%31", "/?k=2"]),
        ("header:x-app", ["/", "/", "/"]),
    ],
)
async def test_what_the_request_says_may_tell_callers_apart(
    upstreams: Upstreams, by: str, asked: list[str]
) -> None:
    path = "/{id}" if by == "path:id" else "/*"
    declared = document({"rate_limit": {"limit": "1/hour", "by": by}}, path=path)
    async with serving(upstreams, declared) as http:
        apps = ("a", "a", "b")
        answers = [await http.get(url, headers={"x-app": app}) for url, app in zip(asked, apps, strict=True)]
    assert [answer.status_code for answer in answers] == [200, 429, 200]


async def test_who_says_two_things_is_counted_by_address(upstreams: Upstreams) -> None:
    async with serving(upstreams, limited(limit="1/hour", by="query:k")) as http:
        answers = [await http.get(f"/?k={number}&k=x") for number in range(3)]
    assert [answer.status_code for answer in answers] == [200, 429, 429]


async def test_a_claim_and_a_group_tell_callers_apart() -> None:
    from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send
    from asgi_gateway.component import Build, Component
    from asgi_gateway.consumers import Principal
    from asgi_gateway.exchange import Exchange
    from asgi_gateway.stage import Stage
    from asgi_gateway.testing import gateway_around
    from asgi_gateway_plugins.rate_limit import RateLimit

    class Known(Component, name="known", stage=Stage.AUTH):
        """Believes what a caller says."""

        def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
            async def known(scope: Scope, receive: Receive, send: Send) -> None:
                said = dict(scope["headers"])
                groups = (said[b"group"].decode(),) if b"group" in said else ()
                claims = {"tenant": said.get(b"tenant", b"").decode(), "roles": ["a"]}
                Exchange.of(scope).principal = Principal("", "known", groups, claims=claims)
                await app(scope, receive, send)

            return known

    async def asked(by: str, *headers: dict[str, str]) -> list[int]:
        limit = RateLimit.model_validate({"limit": "1/hour", "by": by})
        async with gateway_around(Known(), limit) as client:
            return [(await client.get("/", headers=each)).status for each in headers]

    assert await asked("claim:tenant", {"tenant": "a"}, {"tenant": "a"}, {"tenant": "b"}) == [200, 429, 200]
    assert await asked("group", {"group": "a"}, {"group": "a"}, {"group": "b"}) == [200, 429, 200]
    # A list is not one caller: by address, as who has no claim.
    assert await asked("claim:roles", {}, {}) == [200, 429]


async def test_a_tier_has_its_own_rate(upstreams: Upstreams) -> None:
    tiers = [{"groups": ["gold"], "limit": "3/hour"}, {"groups": ["silver", "gold"], "limit": "2/hour"}]
    names = {"a": ["gold"], "b": ["silver"], "c": []}
    declared = document(
        "key_auth",
        {"rate_limit": {"limit": "1/hour", "by": "consumer", "tiers": tiers}},
        consumers=[{"name": name, "keys": [name], "groups": groups} for name, groups in names.items()],
    )
    admitted = Counter()
    async with serving(upstreams, declared) as http:
        for name in names:
            for _ in range(5):
                answer = await http.get("/", headers={"x-api-key": name})
                admitted[name] += answer.status_code == 200
            assert answer.headers["ratelimit-policy"] == f'"hour";q={admitted[name]};w=3600'
    assert admitted == {"a": 3, "b": 2, "c": 1}


async def test_a_route_may_cost_more(upstreams: Upstreams) -> None:
    declared = document({"rate_limit": {"limit": "10/hour", "group": "all", "cost": 4}})
    cheap = {"rate_limit": {"limit": "10/hour", "group": "all"}}
    declared["routes"].append(
        {**declared["routes"][0], "name": "cheap", "path": "/cheap", "components": [cheap]}
    )
    async with serving(upstreams, declared) as http:
        answers = [await http.get(path) for path in ("/", "/", "/", "/cheap", "/cheap", "/cheap")]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 200, 200, 429]


async def test_a_small_excess_waits_and_a_large_one_is_refused(upstreams: Upstreams) -> None:
    options = {"limit": "20/second", "window": "bucket", "burst": 1, "delay": "120ms", "max_delayed": 2}
    async with serving(upstreams, limited(**options)) as http:
        began = asyncio.get_running_loop().time()
        answers = await asyncio.gather(*(http.get("/") for _ in range(6)))
        took = asyncio.get_running_loop().time() - began
    assert Counter(answer.status_code for answer in answers) == {200: 3, 429: 3}
    assert took >= 0.1
    # Nobody who waits is late for ever: one who cannot be admitted in time is told at once.
    async with serving(upstreams, limited(limit="1/hour", delay="1s")) as http:
        assert [(await http.get("/")).status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"limit": "5/minute", "cost": 6}, "cost is more than is ever admitted"),
        ({"limit": "5/minute", "burst": 2}, "burst needs window: bucket"),
        ({"limits": ["5/minute"], "burst": 2, "window": "bucket"}, "burst belongs to one limit"),
        ({"limit": "5/minute", "tiers": [{"groups": [], "limit": "1/minute"}]}, "must not be empty"),
        ({"limit": "5/minute", "tiers": [{"groups": ["a"]}]}, "write either limit"),
    ],
)
def test_what_makes_no_sense_together_is_told(
    upstreams: Upstreams, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        Gateway.parse(limited(**options), plugins=[upstreams])
    assert says in str(raised.value)
