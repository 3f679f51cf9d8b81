"""A gateway inside somebody else's application."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.applications import Starlette
from starlette.routing import Mount

from asgi_gateway.asgi import Message, Receive, Scope, Send, answer
from asgi_gateway.gateway import Gateway

SEEN = "tests.test_mount:seen"


async def seen(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what an app behind the gateway sees of its place."""
    if scope["type"] != "http":
        return
    told = {name: scope[name] for name in ("path", "root_path")}
    await answer(scope, send, 200, json.dumps(told).encode())


def gateway() -> Gateway:
    return Gateway.parse(
        {
            "upstreams": {"seen": {"asgi": SEEN}},
            "consumers": [{"name": "acme", "keys": ["k-1"]}],
            "routes": [
                {"name": "orders", "path": "/orders/{id}", "upstream": "seen", "components": ["key_auth"]},
                {"name": "shop", "path": "/shop/*", "upstream": "seen", "strip_prefix": "/shop"},
            ],
        }
    )


def fastapi() -> FastAPI:
    inner = gateway()
    app = FastAPI(lifespan=inner.lifespan)

    @app.get("/own")
    async def own() -> str:
        return "own"

    @app.middleware("http")
    async def mark(
        request: Request, call_next: Callable[[Request], Awaitable[httpx.Response]]
    ) -> httpx.Response:
        response = await call_next(request)
        response.headers["x-host"] = "there"
        return response

    app.mount("/api", inner)
    return app


@asynccontextmanager
async def client(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://host.test") as client,
    ):
        yield client


async def test_routes_and_middlewares_of_the_host_are_untouched() -> None:
    async with client(fastapi()) as caller:
        own, ours = await caller.get("/own"), await caller.get("/api/shop/x")
    assert own.json() == "own"
    assert own.headers["x-host"] == ours.headers["x-host"] == "there"


async def test_routes_match_below_the_place_where_the_gateway_is_mounted() -> None:
    async with client(fastapi()) as caller:
        refused = await caller.get("/api/orders/7")
        served = await caller.get("/api/orders/7", headers={"x-api-key": "k-1"})
        unknown = await caller.get("/api/api/orders/7")
    assert (refused.status_code, refused.json()["component"]) == (401, "key_auth")
    assert served.json() == {"path": "/api/orders/7", "root_path": "/api"}
    assert unknown.status_code == 404


async def test_a_stripped_prefix_belongs_to_the_root_path() -> None:
    async with client(fastapi()) as caller:
        told = (await caller.get("/api/shop/a/b")).json()
    assert told == {"path": "/api/shop/a/b", "root_path": "/api/shop"}


async def test_a_gateway_whose_lifespan_is_not_run_still_serves() -> None:
    app = Starlette(routes=[Mount("/api", gateway())])
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://host.test") as caller:
        assert (await caller.get("/api/shop/x")).status_code == 200


def test_a_gateway_serves_in_one_loop_after_another() -> None:
    inner = gateway()

    async def ask() -> int:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(inner), base_url="http://a.test"
        ) as caller:
            return (await caller.get("/shop/x")).status_code

    assert [asyncio.run(ask()) for _ in range(3)] == [200, 200, 200]


@pytest.mark.parametrize("path", ["/api/orders/7%2F..", "/api/orders/%2e%2e/shop/x", "/api//orders/7"])
async def test_an_ambiguous_path_is_refused_below_a_mount(path: str) -> None:
    async with client(fastapi()) as caller:
        answered = await caller.get(path)
    assert answered.status_code in (400, 404)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({}, 200),
        ({"headers": [(b"x", b"a\tb\xe9")], "query_string": b"a=%20", "method": "M-SEARCH"}, 200),
        ({"http_version": "1"}, 200),
        ({"http_version": "0.9"}, 505),
        ({"http_version": "2.0"}, 505),
        ({"method": "CONNECT"}, 400),
        ({"method": "GET /admin"}, 400),
        ({"method": "GET\r\n"}, 400),
        ({"method": ""}, 400),
        ({"query_string": b"a HTTP/1.1"}, 400),
        ({"query_string": b"a\r\nX: b"}, 400),
        ({"query_string": b"a\xe9"}, 400),
        ({"headers": [(b"x", b"a\x08b")]}, 400),
        ({"headers": [(b"x", b"a\x7fb")]}, 400),
        ({"headers": [(b"x", b"a\r\nb: c")]}, 400),
        ({"headers": [(b"x y", b"a")]}, 400),
        ({"headers": [(b"x: y", b"a")]}, 400),
        ({"headers": [(b"x\n", b"a")]}, 400),
        ({"headers": [(b"", b"a")]}, 400),
    ],
    ids=repr,
)
async def test_what_another_server_lets_in_is_refused(said: dict[str, Any], status: int) -> None:
    sent: list[Message] = []
    scope: Scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/shop/x",
        "raw_path": b"/shop/x",
        "query_string": b"",
        **said,
        "headers": [(b"host", b"a.test"), *said.get("headers", ())],
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await gateway()(scope, receive, send)
    assert sent[0]["status"] == status


@pytest.mark.parametrize(
    "length", ["9" * 5000, "0" * 5000 + "5", "9" * 601, "5.", ""], ids=["5000", "zeros", "601", "5.", "empty"]
)
async def test_a_length_that_no_server_should_pass_is_refused(length: str) -> None:
    transport = httpx.ASGITransport(gateway())
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as http:
        answer = await http.post("/shop/x", headers={"content-length": length})
    assert (answer.status_code, answer.json()["reason"]) == (400, "bad_framing")


async def test_two_gateways_in_one_application_count_and_sign_for_themselves() -> None:
    """What is signed is the path that the caller asks for, the place of the mount included."""
    from tests.plugins.kit import Hand
    from tests.plugins.test_signature import SECRET, sign

    clock = Hand()
    declared = {
        "upstreams": {"seen": {"asgi": SEEN}},
        "consumers": [{"name": "acme", "hmac": [{"id": "acme-1", "secret": SECRET}]}],
        "routes": [
            {
                "name": "orders",
                "path": "/orders/{id}",
                "upstream": "seen",
                "components": ["signature", {"rate_limit": {"limit": "2/hour", "by": "path:id"}}],
            }
        ],
    }
    one, two = Gateway.parse(declared, clock=clock), Gateway.parse(declared, clock=clock)
    app = Starlette(routes=[Mount("/one", one), Mount("/two", two)])
    transport = httpx.ASGITransport(app)
    async with (
        one.lifespan(app),
        two.lifespan(app),
        httpx.AsyncClient(transport=transport, base_url="http://gw.test") as http,
    ):
        for place in ("/one", "/two"):
            statuses = []
            for number, path in enumerate([f"{place}/orders/7"] * 3 + ["/orders/7"]):
                signed = sign(path=path, headers=(("host", "gw.test"),), nonce=f"nonce-000{number}")
                fields = {"authorization": signed}
                statuses.append((await http.get(f"{place}/orders/7", headers=fields)).status_code)
            assert statuses == [200, 200, 429, 401]
