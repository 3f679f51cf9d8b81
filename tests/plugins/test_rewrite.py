import re
from typing import Any

import pytest

from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from tests.plugins.kit import Upstreams, document, handshake, serving


async def seen(upstreams: Upstreams, options: Any, url: str, method: str = "GET", **more: Any) -> str:
    """The method, path and query that the upstream got."""
    declared = document({"rewrite": options}, **{"path": "/orders/{id}/*", **more})
    async with serving(upstreams, declared) as http:
        assert (await http.request(method, url)).status_code == 200
    scope = upstreams.seen[-1]
    assert scope["root_path"] == "" or "strip_prefix" in (more.get("route") or {})
    path, query = scope["raw_path"].decode(), scope["query_string"].decode()
    return f"{scope['method']} {path}" + (f"?{query}" if query else "")


@pytest.mark.parametrize(
    ("options", "url", "found"),
    [
        ({"path": "/v2/{id}/x"}, "/orders/17/a?b=c", "/v2/17/x?b=c"),
        ({"path": "/v2/{id}/{*}"}, "/orders/a%20b%3F/c/d", "/v2/a%20b%3F/c/d"),
        ({"path": "/v2/{*}"}, "/orders/17", "/v2/"),
        ({"path": "/of/{client}/{route}/{id}"}, "/orders/17", "/of/203.0.113.7/main/17"),
        ({"path": "/caf\u00e9 s/{id}"}, "/orders/17", "/caf%C3%A9%20s/17"),
        ({"strip_prefix": "/orders"}, "/orders/17/a", "/17/a"),
        ({"strip_prefix": "/orders/17/"}, "/orders/17", "/"),
        ({"strip_prefix": "/ord"}, "/orders/17", "/orders/17"),
        ({"add_prefix": "/v2/"}, "/orders/17", "/v2/orders/17"),
        ({"strip_prefix": "/orders", "add_prefix": "/v2/items"}, "/orders/17/", "/v2/items/17/"),
    ],
)
async def test_the_path_that_the_upstream_sees(
    upstreams: Upstreams, options: Any, url: str, found: str
) -> None:
    assert await seen(upstreams, options, url) == f"GET {found}"
    assert upstreams.seen[-1]["path"] == re.sub(
        "%..", lambda code: chr(int(code[0][1:], 16)), found.partition("?")[0]
    ).encode("latin-1", "replace").decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("edits", "query", "found"),
    [
        ({"remove": ["debug"]}, "debug=1&a=%20&d%65bug&a=2&&b", "a=%20&a=2&&b"),
        ({"remove": ["*"], "set": {"id": "{id}"}}, "a=1&b=2", "id=17"),
        ({"rename": {"q": "search term"}}, "q=a+b&x=1&%71", "search%20term=a+b&x=1&search%20term"),
        ({"rename": {"a": "b", "b": "a"}}, "a=1&b=2", "b=1&a=2"),
        ({"set": {"who": "{client}", "a": "x&y=z"}}, "a=1&who=admin&b", "b&who=203.0.113.7&a=x%26y%3Dz"),
        ({"set": {"who": "{consumer}"}}, "who=admin&b=1", "b=1"),
        ({"default": {"page": "1", "size": "20"}}, "size=5", "size=5&page=1"),
        ({"rename": {"p": "page"}, "default": {"page": "1"}}, "p=2", "page=2"),
        ({"add": {"tag": "a"}}, "tag=b", "tag=b&tag=a"),
        ({"add": {"tag": "a"}}, "", "tag=a"),
    ],
)
async def test_the_query_that_the_upstream_sees(
    upstreams: Upstreams, edits: Any, query: str, found: str
) -> None:
    url = "/orders/17" + (f"?{query}" if query else "")
    assert await seen(upstreams, {"query": edits}, url) == f"GET /orders/17?{found}".rstrip("?")


async def test_a_value_of_the_path_adds_no_parameter(upstreams: Upstreams) -> None:
    found = await seen(upstreams, {"query": {"set": {"id": "{id}"}}}, "/orders/1&admin=true")
    assert found == "GET /orders/1&admin=true?id=1%26admin%3Dtrue"


async def test_another_method(upstreams: Upstreams) -> None:
    assert await seen(upstreams, {"method": "post"}, "/orders/17") == "POST /orders/17"


async def test_another_host(upstreams: Upstreams) -> None:
    await seen(upstreams, {"host": "orders.internal:8080"}, "/orders/17")
    assert upstreams.headers("host") == ["orders.internal:8080"]


async def test_with_a_route_that_strips_its_prefix(upstreams: Upstreams) -> None:
    route = {"path": "/orders/*", "strip_prefix": "/orders"}
    assert await seen(upstreams, {"path": "/v2/{*}"}, "/orders/17", route=route) == "GET /v2/17"


async def test_who_is_not_known_has_no_path(upstreams: Upstreams) -> None:
    declared = document({"rewrite": {"path": "/of/{consumer}"}})
    async with serving(upstreams, declared) as http:
        answer = await http.get("/")
    assert (answer.status_code, answer.json()["reason"]) == (400, "cannot_rewrite")
    assert upstreams.seen == []


async def test_a_variable_that_only_other_routes_have_reaches_nobody(upstreams: Upstreams) -> None:
    declared = document(path="/orders")
    declared["routes"].append({"name": "one", "path": "/orders/{id}", "upstream": "main"})
    declared["upstreams"]["main"]["components"] = [{"rewrite": {"path": "/v2/{id}"}}]
    async with serving(upstreams, declared) as http:
        assert (await http.get("/orders")).status_code == 500
    assert upstreams.seen == []


async def test_who_is_known_has_one(upstreams: Upstreams) -> None:
    consumers = [{"name": "acme", "keys": ["k"]}]
    declared = document("key_auth", {"rewrite": {"path": "/of/{consumer}"}}, consumers=consumers)
    async with serving(upstreams, declared) as http:
        await http.get("/", headers={"x-api-key": "k"})
    assert upstreams.seen[0]["raw_path"] == b"/of/acme"


async def test_on_an_upstream(upstreams: Upstreams) -> None:
    declared = document(path="/orders/{id}")
    declared["upstreams"]["main"]["components"] = [{"rewrite": {"path": "/v2/{id}"}}]
    async with serving(upstreams, declared) as http:
        await http.get("/orders/17")
    assert upstreams.seen[0]["raw_path"] == b"/v2/17"


async def test_a_handshake(upstreams: Upstreams) -> None:
    options = {"path": "/v2", "query": {"add": {"a": "1"}}, "method": "POST", "host": "other"}
    declared = document({"rewrite": options}, route={"websocket": True})
    await handshake(Gateway.parse(declared, plugins=[upstreams]), "/chat")
    scope = upstreams.seen[0]
    assert (scope["raw_path"], scope["query_string"], "method" in scope) == (b"/v2", b"a=1", False)


async def test_reporting_leaves_the_path_as_it_was(upstreams: Upstreams) -> None:
    declared = document({"rewrite": {"path": "/of/{consumer}", "mode": "report"}})
    async with serving(upstreams, declared) as http:
        assert (await http.get("/a")).status_code == 200
    assert upstreams.seen[0]["raw_path"] == b"/a"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "rewrites nothing"),
        ({"query": {}}, "rewrites nothing"),
        ({"path": "v2"}, "'v2' is not a plain path"),
        ({"path": "/v2?x={id}"}, "write {name} or {*} for a variable"),
        ({"path": "/../{id}"}, "is not a plain path: dot segment"),
        ({"path": "/a", "add_prefix": "/b"}, "`path` says the whole path"),
        ({"strip_prefix": "/{id}"}, "'/{id}' is not a plain path"),
        ({"add_prefix": "/a//b"}, "'/a//b' is not a plain path"),
        ({"method": "HEAD"}, "HEAD cannot stand in for another method (its answers have no body)"),
        ({"method": "CONNECT"}, "this gateway makes no tunnels"),
        ({"method": "a b"}, "is not a method"),
        ({"host": "a b"}, "is not a host"),
        ({"query": {"set": {"a": "{b.c}"}}}, "write a variable as {name}"),
        ({"query": {"remove": [""]}}, "a parameter has a name"),
    ],
)
def test_what_cannot_be_is_told_at_once(upstreams: Upstreams, options: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        Gateway.parse(document({"rewrite": options}), plugins=[upstreams])
