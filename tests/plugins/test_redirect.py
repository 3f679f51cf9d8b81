import re
from typing import Any

import pytest

from asgi_gateway.config import Use
from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from asgi_gateway.testing import Upstream, gateway_around
from asgi_gateway_plugins.redirect import Redirect
from tests.plugins.kit import Upstreams, document, handshake, serving


@pytest.mark.parametrize(
    ("to", "path", "location"),
    [
        ("/v2/{id}", "/orders/17", "/v2/17"),
        ("/v2/{id}", "/orders/17?a=1&b=%20", "/v2/17?a=1&b=%20"),
        ("/v2?id={id}", "/orders/17?a=1", "/v2?id=17&a=1"),
        ("/v2?id={id}#at-{id}", "/orders/a&b=c", "/v2?id=a%26b%3Dc#at-a%26b%3Dc"),
        ("/v2/{id}", "/orders/a%20b%3F%0d", None),
        ("/v2/{id}", "/orders/a%20b%3F", "/v2/a%20b%3F"),
        ("https://new.example{path}", "/orders/1%20", "https://new.example/orders/1%20"),
        ("https://{host}:8443/x/{id}", "/orders/1", "https://gateway.test:8443/x/1"),
        ("https://new.example?from={path}", "/orders/1%26", "https://new.example?from=/orders/1%26"),
        ("/who/{client}/{route}", "/orders/1", "/who/203.0.113.7/main"),
        ("/braces/%7B{id}%7D", "/orders/1", "/braces/%7B1%7D"),
    ],
)
async def test_where_it_leads(upstreams: Upstreams, to: str, path: str, location: str | None) -> None:
    async with serving(upstreams, document({"redirect": {"to": to}}, path="/orders/{id}")) as http:
        answer = await http.get(path)
    if location is None:
        assert answer.status_code == 400
        return
    assert (answer.status_code, answer.headers["location"], answer.content) == (307, location, b"")
    assert answer.headers["content-length"] == "0"
    assert upstreams.seen == []


async def test_the_rest_of_a_path_goes_along(upstreams: Upstreams) -> None:
    async with serving(upstreams, document({"redirect": {"to": "/new/{*}"}}, path="/old/*")) as http:
        assert (await http.get("/old/a/b%3Fc?q")).headers["location"] == "/new/a/b%3Fc?q"
        assert (await http.get("/old")).headers["location"] == "/new/"


async def test_no_path_leads_to_another_host(upstreams: Upstreams) -> None:
    declared = document({"redirect": {"to": "/{*}"}}, path="/old/*", paths={"double_slash": "keep"})
    async with serving(upstreams, declared) as http:
        assert (await http.get("/old//evil.example/x")).headers["location"] == "/evil.example/x"
        assert (await http.get("/old///evil.example/x")).headers["location"] == "/evil.example/x"


async def test_the_query_may_stay_behind(upstreams: Upstreams) -> None:
    options = {"to": "/new", "keep_query": False, "status": 303}
    async with serving(upstreams, document({"redirect": options})) as http:
        answer = await http.post("/old?secret=1")
    assert (answer.status_code, answer.headers["location"]) == (303, "/new")


async def test_plain_http_goes_to_https_before_anybody_asks_for_a_key(upstreams: Upstreams) -> None:
    declared = document(
        {"redirect": {"https": True, "status": 308}}, "key_auth", consumers=[{"name": "acme", "keys": ["k"]}]
    )
    async with serving(upstreams, declared) as http:
        answer = await http.get("/a%20b?c=d", headers={"host": "Shop.Example:8080"})
        assert (answer.status_code, answer.headers["location"]) == (308, "https://shop.example/a%20b?c=d")
        (secure := http).base_url = "https://gateway.test"
        assert (await secure.get("/")).status_code == 401


@pytest.mark.parametrize(("forwarded", "status"), [("https", 200), ("http", 307), (None, 307)])
async def test_a_trusted_proxy_says_what_the_scheme_was(forwarded: str | None, status: int) -> None:
    upstream = Upstream()
    headers = {"x-forwarded-proto": forwarded} if forwarded else {}
    component = Redirect(https=True, port=8443)
    async with gateway_around(component, upstream=upstream, trusted_proxies=("127.0.0.1",)) as client:
        answer = await client.get("/x", headers=headers)
    assert answer.status == status
    assert answer.values("location") == ([] if status == 200 else ["https://gateway.test:8443/x"])


async def test_a_handshake_is_sent_to_wss(upstreams: Upstreams) -> None:
    declared = document({"redirect": {"https": True}}, route={"websocket": True})
    start, _ = await handshake(Gateway.parse(declared, plugins=[upstreams]), "/chat")
    assert (start["status"], dict(start["headers"])[b"location"]) == (307, b"wss://gateway.test/chat")
    assert upstreams.seen == []


async def test_it_is_there_for_some_requests_only(upstreams: Upstreams) -> None:
    entry = {"redirect": {"to": "/new", "when": {"path": "/old/*"}}}
    async with serving(upstreams, document(entry)) as http:
        assert (await http.get("/old/1")).status_code == 307
        assert (await http.get("/other")).status_code == 200


def test_where_it_stands() -> None:
    plain, secure = Use(component=Redirect(to="/x")), Use(component=Redirect(https=True))
    assert (plain.component.stage.name, secure.component.stage.name) == ("TRANSFORM", "GUARD")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "say either `to` or `https: true`"),
        ({"to": "/x", "https": True}, "say either `to` or `https: true`"),
        ({"to": "x/y"}, "'x/y' is not a URL"),
        ({"to": "ftp://example.com/"}, "is not a URL"),
        ({"to": "/a b"}, "is not a URL"),
        ({"to": "https://{id}.example.com/"}, "lets callers choose the host"),
        ({"to": "https://{host}{path}"}, "is where the request came from"),
        ({"to": "/{id!r}"}, "write a variable as {name}"),
        ({"to": "/?who={consumer}"}, "nobody's business"),
        ({"to": "/x", "status": 200}, "status"),
    ],
)
def test_what_leads_nowhere_is_told_at_once(upstreams: Upstreams, options: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        Gateway.parse(document({"redirect": options}), plugins=[upstreams])
