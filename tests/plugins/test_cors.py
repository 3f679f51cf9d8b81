from typing import Any

import pytest
from pydantic import ValidationError

from asgi_gateway.config import Use
from asgi_gateway.gateway import Gateway
from asgi_gateway.testing import Client, Response, Upstream, gateway_around
from asgi_gateway_plugins.cors import Cors
from asgi_gateway_plugins.ip_filter import IpFilter
from tests.plugins.kit import Upstreams, document, handshake, serving

APP, EVIL = "https://app.example.com", "https://evil.example"
CORS = b"access-control-"


async def preflight(
    client: Client, origin: str = APP, method: str = "PUT", *more: tuple[str, str]
) -> Response:
    fields = [("origin", origin), ("access-control-request-method", method), *more]
    return await client.request("OPTIONS", "/", headers=fields)


def said(response: Response) -> dict[str, str]:
    """The CORS fields of an answer, each of which is there once."""
    fields = [(name, value) for name, value in response.headers if name.startswith(CORS)]
    assert len(dict(fields)) == len(fields)
    return {name.removeprefix(CORS).decode(): value.decode() for name, value in fields}


# Answers


async def test_pages_of_an_allowed_origin_may_read_the_answer() -> None:
    component = Cors(origins=(APP, "https://other.example"), expose_headers=("X-Total",))
    async with gateway_around(component) as client:
        answer = await client.get("/", headers={"origin": APP})
    assert said(answer) == {"allow-origin": APP, "expose-headers": "x-total"}
    assert answer.values("vary") == ["origin"]


@pytest.mark.parametrize(
    "origin",
    [
        EVIL,
        "null",
        "",
        "https://app.example.com.evil.example",
        "https://evil-app.example.com",
        "https://app.example.com@evil.example",
        "https://app.example.com:8443",
        "http://app.example.com",
        "https://app.example.comx",
        "https://app.example.com/",
        "https://APP.example.com",
        "*",
        f"{APP} {APP}",
        f"{APP}, {EVIL}",
        "app.example.com",
    ],
)
async def test_pages_of_other_origins_may_not(origin: str) -> None:
    upstream = Upstream()
    async with gateway_around(Cors(origins=(APP,), credentials=True), upstream=upstream) as client:
        answer = await client.get("/", headers={"origin": origin})
        refused = await preflight(client, origin, "GET")
    assert (answer.status, said(answer), answer.values("vary")) == (200, {}, ["origin"])
    assert (refused.status, refused.json()["reason"]) == (403, "origin_not_allowed")
    assert (said(refused), refused.values("vary")) == ({}, ["origin"])
    assert len(upstream.seen) == 1


async def test_several_origins_are_none() -> None:
    async with gateway_around(Cors(origins=(APP,))) as client:
        for fields in ([("origin", APP), ("origin", EVIL)], [("origin", APP), ("origin", APP)]):
            assert said(await client.get("/", headers=fields)) == {}
            asked = [*fields, ("access-control-request-method", "GET")]
            assert (await client.request("OPTIONS", "/", headers=asked)).status == 403


async def test_patterns_are_for_the_whole_origin() -> None:
    component = Cors(origin_patterns=(r"https://[a-z]+\.example\.com", "https://b"))
    async with gateway_around(component) as client:
        for origin in (APP, "https://b"):
            assert said(await client.get("/", headers={"origin": origin})) == {"allow-origin": origin}
        for origin in (
            f"{APP}.evil.example",
            f"https://evil.example/?{APP}",
            "https://a.b.example.com",
            "https://bc",
            f"x{APP}",
            "null",
        ):
            assert said(await client.get("/", headers={"origin": origin})) == {}


async def test_a_pattern_for_everything_is_still_for_origins_only() -> None:
    async with gateway_around(Cors(origin_patterns=(".*",), credentials=True)) as client:
        for origin in ("null", "", f"{APP}, {EVIL}", "https://" + "a" * 300):
            assert said(await client.get("/", headers={"origin": origin})) == {}


async def test_everybody_gets_the_same_answer() -> None:
    async with gateway_around(Cors(origins=("*",))) as client:
        for fields in ({"origin": EVIL}, {"origin": "null"}, {}):
            answer = await client.get("/", headers=fields)
            assert said(answer) == {"allow-origin": "*"}
            assert answer.values("vary") == []


async def test_with_credentials_everybody_is_told_his_own_origin() -> None:
    async with gateway_around(Cors(origins=("*",), credentials=True)) as client:
        answer = await client.get("/", headers={"origin": EVIL})
        assert said(answer) == {"allow-origin": EVIL, "allow-credentials": "true"}
        assert answer.values("vary") == ["origin"]
        assert said(await client.get("/", headers={"origin": "null"})) == {}
        assert (await client.get("/")).values("vary") == ["origin"]


@pytest.mark.parametrize("origin", [APP, EVIL, ""])
async def test_what_the_upstream_says_is_replaced(origin: str) -> None:
    own = [
        (b"access-control-allow-origin", b"*"),
        (b"access-control-allow-origin", b"https://evil.example"),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-max-age", b"999999"),
        (b"x-kept", b"1"),
    ]
    async with gateway_around(Cors(origins=(APP,)), upstream=Upstream(headers=own)) as client:
        answer = await client.get("/", headers={"origin": origin} if origin else {})
    assert said(answer) == ({"allow-origin": APP} if origin == APP else {})
    assert answer.values("x-kept") == ["1"]


@pytest.mark.parametrize(
    ("own", "both"),
    [
        ("accept-encoding", ["accept-encoding", "origin"]),
        ("Accept, ORIGIN", ["Accept, ORIGIN"]),
        ("x-origin", ["x-origin", "origin"]),
        ("*", ["*"]),
    ],
)
async def test_vary_names_the_origin_once(own: str, both: list[str]) -> None:
    upstream = Upstream(headers=[(b"vary", own.encode())])
    async with gateway_around(Cors(origins=(APP,)), upstream=upstream) as client:
        assert (await client.get("/", headers={"origin": APP})).values("vary") == both


async def test_refusals_and_failures_can_be_read_by_pages() -> None:
    components = (IpFilter(deny=("203.0.113.0/24",)), Cors(origins=(APP,)))
    async with gateway_around(*components, upstream=Upstream(fails="head")) as client:
        refused = await client.get("/", headers={"origin": APP}, client=("203.0.113.9", 1))
        failed = await client.get("/", headers={"origin": APP})
    assert (refused.status, failed.status) == (403, 500)
    assert said(refused) == said(failed) == {"allow-origin": APP}


# Preflights


async def test_a_preflight_is_answered_here() -> None:
    upstream = Upstream()
    component = Cors.model_validate(
        {
            "origins": (APP,),
            "methods": ("GET", "PUT"),
            "headers": ("X-Key",),
            "credentials": True,
            "max_age": "1h",
        }
    )
    async with gateway_around(component, upstream=upstream) as client:
        fields = ("access-control-request-headers", "content-type,X-KEY")
        answer = await preflight(client, APP, "PUT", fields)
    assert (answer.status, answer.body) == (204, b"")
    assert said(answer) == {
        "allow-origin": APP,
        "allow-credentials": "true",
        "allow-methods": "GET, PUT",
        "allow-headers": "accept, accept-language, content-language, content-type, x-key",
        "max-age": "3600",
    }
    assert answer.values("vary") == ["origin, access-control-request-method, access-control-request-headers"]
    assert answer.values("content-length") == []
    assert upstream.seen == []


@pytest.mark.parametrize(
    ("method", "fields", "reason"),
    [
        ("DELETE", "", "method_not_allowed"),
        ("put", "", "method_not_allowed"),
        ("PUT, GET", "", "method_not_allowed"),
        ("*", "", "method_not_allowed"),
        ("PUT", "x-other", "header_not_allowed"),
        ("PUT", "x-key, x-other", "header_not_allowed"),
        ("PUT", "*", "header_not_allowed"),
        ("PUT", "x-key x-key", "header_not_allowed"),
        ("PUT", "x-key," * 1000, "header_not_allowed"),
    ],
)
async def test_a_preflight_that_does_not_fit_is_refused(method: str, fields: str, reason: str) -> None:
    upstream = Upstream()
    component = Cors(origins=(APP,), methods=("PUT",), headers=("x-key",))
    async with gateway_around(component, upstream=upstream) as client:
        answer = await preflight(client, APP, method, ("access-control-request-headers", fields))
    assert (answer.status, answer.json()["reason"]) == (403, reason)
    assert "allow-methods" not in said(answer)
    assert upstream.seen == []


async def test_stars_are_spelt_out() -> None:
    async with gateway_around(Cors(origins=("*",), methods=("*",), headers=("*",))) as client:
        names = ("Authorization", "x-a")
        fields = [("access-control-request-headers", name) for name in names]
        assert said(await preflight(client, EVIL, "PURGE", *fields)) == {
            "allow-origin": "*",
            "allow-methods": "PURGE",
            "allow-headers": "authorization, x-a",
            "max-age": "600",
        }
        for odd in ("GET PUT", "a" * 200, "GÉT"):
            assert (await preflight(client, EVIL, odd)).json()["reason"] == "method_not_allowed"
        for odd in ("x y", "x:y", "é", "a" * 5000):
            refused = await preflight(client, EVIL, "GET", ("access-control-request-headers", odd))
            assert refused.json()["reason"] == "header_not_allowed"


async def test_a_field_full_of_commas_is_refused_at_once() -> None:
    async with gateway_around(Cors(origins=("*",), headers=("*",))) as client:
        answer = await preflight(client, APP, "GET", ("access-control-request-headers", "," * 60_000))
    assert answer.json()["reason"] == "header_not_allowed"


async def test_a_private_network_is_opened_only_where_that_is_said() -> None:
    asks = ("access-control-request-private-network", "true")
    async with gateway_around(Cors(origins=(APP,))) as client:
        assert "allow-private-network" not in said(await preflight(client, APP, "GET", asks))
    async with gateway_around(Cors(origins=(APP,), private_network=True)) as client:
        assert said(await preflight(client, APP, "GET", asks))["allow-private-network"] == "true"
        assert "allow-private-network" not in said(await preflight(client, APP, "GET"))


async def test_any_other_options_goes_upstream() -> None:
    upstream = Upstream()
    async with gateway_around(Cors(origins=(APP,)), upstream=upstream) as client:
        assert (await client.request("OPTIONS", "/", headers={"origin": APP})).status == 200
        assert (await client.request("OPTIONS", "/")).status == 200
        # Nobody but a browser asks for a method, and a browser says for whom.
        asks = {"access-control-request-method": "GET"}
        assert (await client.request("OPTIONS", "/", headers=asks)).status == 403
    assert len(upstream.seen) == 2


async def test_a_preflight_is_found_by_the_method_that_it_asks_for(upstreams: Upstreams) -> None:
    declared = document({"cors": {"origins": [APP], "methods": ["PUT"]}}, route={"methods": ["PUT"]})
    async with serving(upstreams, declared) as http:
        for asked, status in (("PUT", 204), ("GET", 405)):
            asks = {"origin": APP, "access-control-request-method": asked}
            assert (await http.options("/", headers=asks)).status_code == status
        assert (await http.options("/", headers={"access-control-request-method": "PUT"})).status_code == 403
    assert upstreams.seen == []


async def test_what_has_no_route_is_said_to_pages_too(upstreams: Upstreams) -> None:
    declared = document(path="/here", components=[{"cors": {"origins": [APP]}}])
    async with serving(upstreams, declared) as http:
        missing = await http.get("/nowhere", headers={"origin": APP})
        asks = {"origin": APP, "access-control-request-method": "GET"}
        assert (await http.options("/nowhere", headers=asks)).status_code == 404
    assert missing.status_code == 404
    assert missing.headers["access-control-allow-origin"] == APP


async def test_reporting_lets_a_preflight_through_to_the_upstream() -> None:
    upstream = Upstream()
    use = Use(component=Cors(origins=(APP,)), mode="report")
    async with gateway_around(use, upstream=upstream) as client:
        assert (await preflight(client, EVIL)).status == 200
        assert (await preflight(client, APP, "GET")).status == 204
    (reported,) = upstream.seen[0].scope["asgi_gateway.exchange"].reported
    assert reported.reason == "origin_not_allowed"


# WebSocket


@pytest.mark.parametrize(
    ("origins", "accepted"),
    [
        ([APP], True),
        (["http://gateway.test"], True),
        (["https://gateway.test"], True),
        ([], True),
        ([EVIL], False),
        (["null"], False),
        (["https://gateway.test.evil.example"], False),
        (["https://gateway.test:8443"], False),
        ([APP, EVIL], False),
        (["gateway.test"], False),
    ],
)
async def test_handshakes_of_other_origins_are_refused(
    upstreams: Upstreams, origins: list[str], accepted: bool
) -> None:
    cors = {"cors": {"origins": [APP], "websocket": True}}
    gateway = Gateway.parse(document(cors, route={"websocket": True}), plugins=[upstreams])
    sent = await handshake(gateway, headers=[(b"origin", origin.encode()) for origin in origins])
    assert (sent[0]["type"] == "websocket.accept") == accepted
    assert accepted or sent[0]["status"] == 403


async def test_handshakes_pass_unless_that_is_said(upstreams: Upstreams) -> None:
    declared = document({"cors": {"origins": [APP]}}, route={"websocket": True})
    gateway = Gateway.parse(declared, plugins=[upstreams])
    sent = await handshake(gateway, headers=[(b"origin", EVIL.encode())])
    assert sent[0]["type"] == "websocket.accept"


# Options


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "allows no origin"),
        ({"origins": ["null"]}, "'null' is no origin"),
        ({"origins": ["app.example.com"]}, "is not an origin"),
        ({"origins": [f"{APP}/"]}, "is not an origin"),
        ({"origins": ["https://*.example.com"]}, "is not an origin"),
        ({"origins": ["*", APP]}, "leave the others out"),
        ({"origins": ["*"], "origin_patterns": [".*"]}, "leave the others out"),
        ({"origins": ["*"], "websocket": True}, "refuses no handshake"),
        ({"origins": [APP], "credentials": True, "expose_headers": ["*"]}, "list expose_headers"),
        ({"origin_patterns": ["(a"]}, "unclosed group"),
        ({"origins": [APP], "headers": ["x y"]}, "is not the name of a field"),
        ({"origins": [APP], "headers": ["x\r\ny"]}, "is not the name of a field"),
        ({"origins": [APP], "methods": ["GET PUT"]}, "is not a method"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Cors.model_validate(options)


def test_origins_are_spelt_as_browsers_do() -> None:
    component = Cors(
        origins=("https://APP.example.com:443", "http://a:80", "http://a:081", "capacitor://localhost")
    )
    assert component.origins == (APP, "http://a", "http://a:81", "capacitor://localhost")


async def test_ten_thousand_origins_are_nothing_special() -> None:
    many = tuple(f"https://a{number}.example.com" for number in range(10_000))
    async with gateway_around(Cors(origins=many)) as client:
        assert said(await client.get("/", headers={"origin": many[-1]})) == {"allow-origin": many[-1]}
