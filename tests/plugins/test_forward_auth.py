import asyncio
import time
from typing import Any

import pytest

from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from asgi_gateway.testing import Request, check_component
from asgi_gateway_plugins.forward_auth import ForwardAuth
from tests.plugins.issuer import Service, service
from tests.plugins.kit import CALLER, Upstreams, document, handshake, serving

CONSUMERS = [{"name": "acme", "groups": ["gold"]}]


def guarded(url: str, *others: Any, **options: Any) -> dict[str, Any]:
    options = {"url": f"{url}/may", **options}
    return document({"forward_auth": options}, *others, consumers=CONSUMERS, route={"websocket": True})


def said(one: Service) -> dict[bytes, bytes]:
    """The fields that the service got last."""
    return dict(line.split(b": ", 1) for line in one.heads[-1].split(b"\r\n")[1:] if line)


async def test_what_the_service_allows_passes(upstreams: Upstreams) -> None:
    async with service({"/may": {}}) as one:
        one.fields = ["X-User: acme", "X-Role: a", "X-Role: b", "X-Other: 1", "Set-Cookie: s=1"]
        options: dict[str, Any] = {"consumer_from": "x-user", "upstream_headers": ["X-Role", "x-absent"]}
        async with serving(upstreams, guarded(one.url, {"acl": {"groups": ["gold"]}}, **options)) as http:
            headers = {
                "authorization": "Bearer t",
                "cookie": "c=1",
                "x-secret": "s",
                "x-role": "root",
                "X_Role": "root",
                "x-absent": "root",
                "x-consumer": "root",
            }
            answer = await http.post("/a%20b?x=1", headers=headers, content=b"body")
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
    assert upstreams.headers("x-role") == ["a", "b"]
    assert upstreams.headers("x-consumer") == ["acme"]
    assert upstreams.headers("x-absent") == upstreams.headers("x-other") == upstreams.headers("x_role") == []
    asked = said(one)
    assert one.heads[-1].startswith(b"GET /may HTTP/1.1")
    assert (asked[b"authorization"], asked[b"cookie"]) == (b"Bearer t", b"c=1")
    assert asked[b"x-forwarded-method"] == b"POST"
    assert asked[b"x-forwarded-uri"] == b"/a%20b?x=1"
    assert asked[b"x-forwarded-host"] == b"gateway.test"
    assert asked[b"x-forwarded-proto"] == b"http"
    assert asked[b"x-forwarded-for"] == CALLER.encode()
    assert b"x-secret" not in asked
    assert one.bodies == [b""]


@pytest.mark.parametrize("status", [301, 302, 400, 401, 403, 404, 429])
async def test_what_it_does_not_allow_is_refused_as_it_says(upstreams: Upstreams, status: int) -> None:
    async with service({"/may": {"secret": "of the service"}}) as one:
        one.status = status
        one.fields = ["WWW-Authenticate: Custom", "Location: /login", "X-Inner: 1", "Set-Cookie: a=1"]
        async with serving(upstreams, guarded(one.url)) as http:
            answer = await http.get("/")
    assert (answer.status_code, answer.json()["reason"]) == (status, "denied")
    assert (answer.headers["www-authenticate"], answer.headers["location"]) == ("Custom", "/login")
    assert answer.headers["set-cookie"] == "a=1"
    assert "x-inner" not in answer.headers
    assert "of the service" not in answer.text
    assert upstreams.seen == []


async def test_a_forged_forwarding_field_is_not_passed_on(upstreams: Upstreams) -> None:
    async with service({"/may": {}}) as one, serving(upstreams, guarded(one.url)) as http:
        await http.get("/", headers={"x-forwarded-uri": "/public", "x-forwarded-for": "10.0.0.1"})
    assert one.heads[-1].count(b"x-forwarded-uri") == one.heads[-1].count(b"x-forwarded-for") == 1
    assert said(one)[b"x-forwarded-uri"] == b"/"


@pytest.mark.parametrize("status", [304, 500, 503])
async def test_a_service_that_fails_denies_unless_that_is_said(upstreams: Upstreams, status: int) -> None:
    async with service({"/may": {}}) as one:
        one.status = status
        async with serving(upstreams, guarded(one.url)) as http:
            answer = await http.get("/")
            assert (answer.status_code, answer.json()["reason"]) == (503, "auth_unavailable")
            assert answer.headers["retry-after"] == "1"
        async with serving(upstreams, guarded(one.url, status_on_error=403)) as http:
            assert (await http.get("/")).status_code == 403
        assert upstreams.seen == []
        async with serving(upstreams, guarded(one.url, on_error="allow", upstream_headers=["x-a"])) as http:
            assert (await http.get("/", headers={"x-consumer": "root", "x-a": "1"})).status_code == 200
    assert upstreams.headers("x-consumer") == upstreams.headers("x-a") == []


async def test_a_frozen_service_costs_time_only_at_first(upstreams: Upstreams) -> None:
    async with service({"/may": {}}) as one:
        one.frozen = True
        async with serving(upstreams, guarded(one.url, timeout="50ms")) as http:
            for _ in range(3):
                assert (await http.get("/")).status_code == 503
            for _ in range(10):
                began = time.perf_counter()
                assert (await http.get("/")).status_code == 503
                assert time.perf_counter() - began < 0.2
            # On a busy machine 50 ms may be over before the service is reached.
            assert len(one.asked) <= 3
            one.frozen = False
            await asyncio.sleep(1.05)
            assert (await http.get("/")).status_code == 200


async def test_it_keeps_the_rules_of_components() -> None:
    async with service({"/may": {}}) as one:
        one.denies = b"Bearer no"
        refused = Request(headers=[("authorization", "Bearer no")])
        await check_component(ForwardAuth(url=f"{one.url}/may"), refused_by=refused)


async def test_without_a_name_nobody_is_known(upstreams: Upstreams) -> None:
    async with service({"/may": {}}) as one:
        listed = guarded(one.url, {"acl": {"groups": ["gold"]}}, consumer_from="x-user")
        async with serving(upstreams, listed) as http:
            for fields in ([], ["X-User:"], ["X-User: acme", "X-User: root"]):
                one.fields = fields
                assert (await http.get("/")).status_code == 403


async def test_reporting_lets_pass(upstreams: Upstreams) -> None:
    async with service({"/may": {}}) as one:
        one.status = 403
        async with serving(upstreams, guarded(one.url, mode="report")) as http:
            assert (await http.get("/")).status_code == 200


async def test_a_websocket_is_asked_about_too(upstreams: Upstreams) -> None:
    async with service({"/may": {}}) as one:
        gateway = Gateway.parse(guarded(one.url), plugins=[upstreams])
        async with gateway.lifespan():
            assert (await handshake(gateway, "/live"))[0]["type"] == "websocket.accept"
            assert said(one)[b"x-forwarded-uri"] == b"/live"
            one.status = 401
            refused = await handshake(gateway)
            assert (refused[0]["type"], refused[0]["status"]) == ("websocket.http.response.start", 401)


@pytest.mark.parametrize("url", ["", "ftp://a", "http://user:pw@host/", "localhost:9000"])
def test_what_is_no_url_is_a_mistake(upstreams: Upstreams, url: str) -> None:
    with pytest.raises(ConfigError, match="url"):
        Gateway.parse(document({"forward_auth": {"url": url}}), plugins=[upstreams])


def test_a_length_without_its_body_is_not_passed_on(upstreams: Upstreams) -> None:
    """The question would fail, and with `on_error: allow` let in whoever sends a body."""
    options = {"url": "http://127.0.0.1:1/may", "request_headers": ["cookie", "content-length"]}
    with pytest.raises(ConfigError, match="content-length says how a message is framed"):
        Gateway.parse(document({"forward_auth": options}), plugins=[upstreams])
