import asyncio
import gzip
import hmac
import re
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from pydantic import ConfigDict

import asgi_gateway_contrib
import asgi_gateway_plugins
from asgi_gateway.asgi import ASGIApp, Message, Receive, Scope, Send
from asgi_gateway.call import Call
from asgi_gateway.component import Build, Component, Refusal
from asgi_gateway.config import Use, When
from asgi_gateway.consumers import Consumer
from asgi_gateway.errors import Aborted
from asgi_gateway.exchange import EXCHANGE
from asgi_gateway.stage import Stage
from asgi_gateway.testing import HandClock, Request, Upstream, check_component, gateway_around
from asgi_gateway_contrib.http_signature import HttpSignature
from asgi_gateway_contrib.validate import Validate
from asgi_gateway_plugins.access_log import AccessLog
from asgi_gateway_plugins.acl import Acl
from asgi_gateway_plugins.all_of import AllOf
from asgi_gateway_plugins.any_of import AnyOf
from asgi_gateway_plugins.basic_auth import BasicAuth
from asgi_gateway_plugins.body_limit import BodyLimit
from asgi_gateway_plugins.breaker import Breaker
from asgi_gateway_plugins.cache import Cache
from asgi_gateway_plugins.canary import Canary
from asgi_gateway_plugins.compress import Compress
from asgi_gateway_plugins.concurrency import Concurrency
from asgi_gateway_plugins.cors import Cors
from asgi_gateway_plugins.csrf import Csrf
from asgi_gateway_plugins.decompress import Decompress
from asgi_gateway_plugins.early_rate_limit import EarlyRateLimit
from asgi_gateway_plugins.envelope import Envelope
from asgi_gateway_plugins.errors import Errors
from asgi_gateway_plugins.fallback import Fallback, FixedAnswer
from asgi_gateway_plugins.fault import Fault
from asgi_gateway_plugins.headers import Headers
from asgi_gateway_plugins.idempotency import Idempotency
from asgi_gateway_plugins.ip_filter import IpFilter
from asgi_gateway_plugins.jwt_auth import JwtAuth
from asgi_gateway_plugins.key_auth import KeyAuth
from asgi_gateway_plugins.maintenance import Maintenance
from asgi_gateway_plugins.middleware import Middleware
from asgi_gateway_plugins.mirror import Mirror
from asgi_gateway_plugins.mtls import Mtls
from asgi_gateway_plugins.quota import Quota
from asgi_gateway_plugins.rate_limit import RateLimit
from asgi_gateway_plugins.redirect import Redirect
from asgi_gateway_plugins.referer import Referer
from asgi_gateway_plugins.request_id import RequestId
from asgi_gateway_plugins.respond import Respond
from asgi_gateway_plugins.retry import Retry
from asgi_gateway_plugins.rewrite import Rewrite
from asgi_gateway_plugins.security_headers import SecurityHeaders
from asgi_gateway_plugins.signature import Signature
from asgi_gateway_plugins.user_agent import UserAgent

PETS = str(Path(__file__).parent / "plugins" / "pets.yaml")
PAGE = Path(__file__).parents[1] / "docs" / "testing.md"
ANNA = Consumer.model_validate(
    {
        "name": "anna",
        "keys": ["secret"],
        "basic": [{"username": "anna", "password": "hush"}],
        "certificates": ["ab" * 32],
        "hmac": [{"id": "anna", "secret": "0123456789abcdef0123456789abcdef"}],
    }
)
JWT_SECRET = "0123456789abcdef0123456789abcdef"
JWT = (
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm5hIiwiZXhwIjo0MTAyNDQ0ODAwfQ"
    ".UVtJ_QjKHXe8ptxvfU5gn4zRWc999C62RA8QzeFJ6XE"
)
BERT = Consumer.model_validate({"name": "bert", "keys": ["other"]})


async def imported(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 203, "headers": []})
    await send({"type": "http.response.body", "body": b"imported"})


class Plain:
    """A middleware that changes nothing."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def signed(nonce: str) -> str:
    """The Authorization of a GET that anna signs now."""
    now = f"{time.time():.0f}"
    lines = ["HMAC-SHA256", now, nonce, "GET", "/", "", "host:gateway.test", sha256().hexdigest()]
    mac = b64encode(hmac.digest(JWT_SECRET.encode(), "\n".join(lines).encode(), "sha256")).decode()
    return f'HMAC-SHA256 id="anna", time="{now}", nonce="{nonce}", headers="host", signature="{mac}"'


def signed_message(nonce: str) -> list[tuple[str, str]]:
    """The same by RFC 9421."""
    said = f'("@method" "@authority" "@path" "@query");created={time.time():.0f};keyid="anna";nonce="{nonce}"'
    lines = ['"@method": GET', '"@authority": gateway.test', '"@path": /', '"@query": ?']
    lines.append(f'"@signature-params": {said}')
    mac = b64encode(hmac.digest(JWT_SECRET.encode(), "\n".join(lines).encode(), "sha256")).decode()
    return [("signature-input", f"sig={said}"), ("signature", f"sig=:{mac}:")]


# The gateway around a component


async def test_two_lines_are_a_whole_gateway() -> None:
    async with gateway_around(RateLimit(limit="2/minute")) as client:
        assert [(await client.get("/")).status for _ in range(3)] == [200, 200, 429]


async def test_the_upstream_sees_what_the_caller_sent() -> None:
    upstream = Upstream(b"made", status=201, headers=[(b"x-answer", b"1")])
    async with gateway_around(upstream=upstream) as client:
        response = await client.post("/a%20b?c=d", headers=[("X-Wish", "1")], body=b"hello")
    assert (response.status, response.body, response.values("X-Answer")) == (201, b"made", ["1"])
    seen = upstream.seen[0]
    assert (seen.method, seen.path, seen.body, seen.values("x-wish")) == ("POST", "/a b", b"hello", ["1"])
    assert seen.scope["query_string"] == b"c=d"
    assert (b"content-length", b"5") in seen.headers


async def test_a_body_may_come_in_pieces() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    upstream = Upstream()
    async with gateway_around(upstream=upstream) as client:
        await client.request("PUT", "/", body=body())
    assert upstream.seen[0].body == b"one two"


async def test_callers_have_the_addresses_that_a_test_gives_them() -> None:
    async with gateway_around(RateLimit(limit="1/minute")) as client:
        assert (await client.get("/", client=("192.0.2.1", 1))).status == 200
        assert (await client.get("/", client=("192.0.2.2", 1))).status == 200
        assert (await client.get("/", client=("192.0.2.1", 2))).status == 429


async def test_time_passes_when_the_clock_is_advanced() -> None:
    clock = HandClock()
    async with gateway_around(RateLimit(limit="1/minute", window="fixed"), clock=clock) as client:
        assert (await client.get("/")).status == 200
        assert (await client.get("/")).status == 429
        clock.advance(61)
        assert (await client.get("/")).status == 200
    assert (clock.monotonic(), clock.time()) == (1061.0, 1_700_000_061.0)


def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="does not go back"):
        HandClock().advance(-1)


async def test_an_upstream_may_be_an_import_path() -> None:
    async with gateway_around(upstream=f"{__name__}:imported") as client:
        response = await client.get("/")
    assert (response.status, response.body) == (203, b"imported")


async def test_other_upstreams_and_settings_are_there_by_name() -> None:
    other = Upstream(b"other")
    components = KeyAuth(), Canary(upstream="next", percent=100)
    async with gateway_around(*components, upstreams={"next": other}, consumers=(ANNA,)) as client:
        assert (await client.get("/", headers=[("x-api-key", "secret")])).body == b"other"
    assert other.seen[0].scope[EXCHANGE].principal.consumer == "anna"


# Upstreams that fail, and callers who leave


async def test_an_upstream_that_fails_before_its_head_is_a_500() -> None:
    async with gateway_around(upstream=Upstream(fails="head")) as client:
        response = await client.get("/")
    assert (response.status, response.json()["reason"]) == (500, "raised")


async def test_an_upstream_that_returns_too_early_is_a_500() -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None: ...

    async with gateway_around(upstream=silent) as client:
        assert (await client.get("/")).json()["reason"] == "incomplete"


async def test_an_answer_that_breaks_in_the_middle_is_aborted() -> None:
    async with (
        gateway_around(upstream=Upstream(b"first", fails="chunk")) as client,
        client.stream("GET", "/") as stream,
    ):
        assert await stream.chunk() == b"first"
        with pytest.raises(Aborted):
            await stream.chunk()
        with pytest.raises(Aborted):
            await stream.read()


async def test_an_answer_is_read_piece_by_piece() -> None:
    upstream = Upstream(b"a", b"b", b"c", waits="chunk", headers=[(b"x-kind", b"slow")])
    async with gateway_around(upstream=upstream) as client, client.stream("GET", "/") as stream:
        assert await stream.head() == 200
        assert (b"x-kind", b"slow") in stream.headers
        assert await stream.chunk() == b"a"
        upstream.proceed(2)
        assert await stream.read() == b"bc"
        assert await stream.chunk() == b""


async def test_a_caller_who_leaves_cancels_the_upstream() -> None:
    upstream = Upstream(waits="head")
    async with gateway_around(upstream=upstream) as client, client.stream("GET", "/") as stream:
        await upstream.reached.wait()
        assert await stream.leave()
    assert upstream.seen[0].left
    assert upstream.seen[0].scope[EXCHANGE].outcome == "caller_left"


async def test_the_end_of_the_block_leaves_too() -> None:
    upstream = Upstream(waits="head")
    async with gateway_around(upstream=upstream) as client:
        async with client.stream("GET", "/"):
            await upstream.reached.wait()
        assert upstream.seen[0].left


async def test_a_deadline_passes_with_the_clock() -> None:
    clock, upstream = HandClock(), Upstream(waits="head")
    async with gateway_around(upstream=upstream, clock=clock) as client, client.stream("GET", "/") as stream:
        await upstream.reached.wait()
        clock.advance(31)
        assert await stream.head() == 504


async def test_a_component_of_an_upstream_stands_there() -> None:
    async with gateway_around(Protects(), upstream=Upstream(b"answer")) as client:
        assert (await client.get("/")).values("x-call") == ["main"]
    await check_component(Protects())


class Protects(Component, name="protects", stage=Stage.PROTECT):
    """Names the call's upstream in its answer."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        async def protects(scope: Scope, receive: Receive, send: Send) -> None:
            Call.of(scope).judge(name_it)
            await app(scope, receive, send)

        return protects


def name_it(call: Call, message: Message) -> None:
    message["headers"] = [*message["headers"], (b"x-call", call.upstream.encode())]


# WebSockets


async def test_a_websocket_talks_with_the_upstream() -> None:
    async with gateway_around() as client, client.websocket("/live") as socket:
        assert (socket.accepted, socket.status) == (True, 101)
        await socket.send("hello")
        assert await socket.receive() == "hello"
        await socket.send(b"bytes")
        assert await socket.receive() == b"bytes"
        await socket.close()


async def test_a_websocket_that_is_refused_shows_its_status() -> None:
    async with gateway_around(KeyAuth()) as client, client.websocket("/live") as socket:
        assert (socket.accepted, socket.status) == (False, 401)
        assert b"no_key" in socket.denial


async def test_a_websocket_that_the_upstream_closes_says_its_code() -> None:
    async def closing(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4000})

    async with gateway_around(upstream=closing) as client, client.websocket("/live") as socket:
        assert await socket.receive() == b""
        assert socket.close_code == 4000


# The check

CONFORMING: list[tuple[Component, dict[str, Any]]] = [
    (AccessLog(), {}),
    (
        BodyLimit.model_validate({"max_size": "8B"}),
        {"request": Request("POST", body=b"12345678"), "refused_by": Request("POST", body=b"123456789")},
    ),
    (
        Acl(consumers=("anna",)),
        {
            "request": Request(headers=[("x-api-key", "secret")]),
            "refused_by": Request(headers=[("x-api-key", "other")]),
            "consumers": (ANNA, BERT),
            "components": (Use(component=KeyAuth()),),
        },
    ),
    (
        AllOf(of=(Use(component=KeyAuth()), Use(component=BasicAuth()))),
        {
            "request": Request(headers=[("x-api-key", "secret"), ("authorization", "Basic YW5uYTpodXNo")]),
            "refused_by": Request(headers=[("x-api-key", "secret")]),
            "consumers": (ANNA,),
        },
    ),
    (
        AnyOf(of=(Use(component=BasicAuth()), Use(component=KeyAuth()))),
        {
            "request": Request(headers=[("x-api-key", "secret")]),
            "refused_by": Request(headers=[("x-api-key", "wrong")]),
            "consumers": (ANNA,),
        },
    ),
    (
        BasicAuth(),
        {
            "request": Request(headers=[("authorization", "Basic YW5uYTpodXNo")]),
            "refused_by": Request(headers=[("authorization", "Basic YW5uYTpodXNv")]),
            "consumers": (ANNA,),
        },
    ),
    (
        Breaker.model_validate({"slow_rate": 0.1, "slow_call": "1us", "minimum_calls": 1}),
        {"refused_by": [Request(), Request()]},
    ),
    (Cache(), {}),
    (Compress(), {"request": Request(headers=[("accept-encoding", "gzip")])}),
    (Canary(upstream="next", percent=1), {"upstreams": {"next": Upstream()}}),
    (
        Cors(origins=("https://a.example",)),
        {
            "refused_by": Request(
                "OPTIONS", headers=[("origin", "https://b.example"), ("access-control-request-method", "GET")]
            )
        },
    ),
    (Csrf(), {"refused_by": Request("POST", headers=[("sec-fetch-site", "cross-site")])}),
    (
        Concurrency(limit=1, by="header:x-app", unidentified="refuse"),
        {"request": Request(headers=[("x-app", "a")]), "refused_by": Request()},
    ),
    (
        Decompress(),
        {
            "request": Request("POST", headers=[("content-encoding", "gzip")], body=gzip.compress(b"{}")),
            "refused_by": Request("POST", headers=[("content-encoding", "br")], body=b"{}"),
        },
    ),
    (EarlyRateLimit(limit="1/minute"), {"refused_by": [Request(), Request()]}),
    (Envelope(), {}),
    (Errors(upstream=("5xx",)), {}),
    (Fallback(answer=FixedAnswer(), upstream="next"), {"upstreams": {"next": Upstream()}}),
    (Fault.model_validate({"delay": "1ms"}), {}),
    (Headers.model_validate({"request": {"set": {"x-a": "b"}}, "response": {"add": {"x-c": "d"}}}), {}),
    (
        HttpSignature.model_validate({"max_age": "2h"}),
        {
            "request": Request(headers=signed_message("n-1")),
            "refused_by": Request(headers=[*signed_message("n-2")[:1], *signed_message("n-3")[1:]]),
            "consumers": (ANNA,),
        },
    ),
    (
        Idempotency(required=True),
        {
            "request": Request("POST", headers=[("idempotency-key", "one")], body=b"body"),
            "refused_by": Request("POST", body=b"body"),
        },
    ),
    (IpFilter(deny=("203.0.113.0/24",)), {"refused_by": Request(client=("203.0.113.7", 1))}),
    (
        JwtAuth.model_validate({"keys": [{"algorithm": "HS256", "secret": JWT_SECRET}]}),
        {
            "request": Request(headers=[("authorization", f"Bearer {JWT}")]),
            "refused_by": Request(headers=[("authorization", f"Bearer {JWT[:-2]}")]),
        },
    ),
    (
        KeyAuth(),
        {
            "request": Request(headers=[("x-api-key", "secret")]),
            "refused_by": Request(headers=[("x-api-key", "wrong")]),
            "consumers": (ANNA,),
        },
    ),
    (Maintenance(active=True, allow=("127.0.0.1",)), {"refused_by": Request(client=("203.0.113.7", 1))}),
    (Middleware(cls=f"{__name__}:Plain"), {}),
    (Mirror(upstream="next"), {"upstreams": {"next": Upstream()}}),
    (Quota(limit=1), {"refused_by": [Request(), Request()]}),
    (
        Mtls(header="x-cert"),
        {
            "request": Request(headers=[("x-cert", f"Hash={'ab' * 32}")]),
            "refused_by": Request(headers=[("x-cert", f"Hash={'cd' * 32}")]),
            "consumers": (ANNA,),
            "trusted_proxies": ("127.0.0.1",),
        },
    ),
    (RateLimit(limit="1/minute"), {"refused_by": [Request(), Request()]}),
    (
        Referer(allow=("a.example",)),
        {"request": Request(headers=[("referer", "https://a.example/page")]), "refused_by": Request()},
    ),
    (
        Redirect(https=True),
        {
            "request": Request(headers=[("x-forwarded-proto", "https")]),
            "trusted_proxies": ("127.0.0.1",),
        },
    ),
    (RequestId(), {}),
    (Respond(openapi=PETS), {}),
    (Retry(), {}),
    (
        Rewrite(path="/of/{consumer}"),
        {
            "request": Request(headers=[("x-api-key", "secret")]),
            "refused_by": Request(),
            "consumers": (ANNA,),
            "components": (Use(component=KeyAuth(), when=When(headers=(("x-api-key", "*"),))),),
        },
    ),
    (SecurityHeaders(), {}),
    (UserAgent(deny=("(?i)bot",)), {"refused_by": Request(headers=[("user-agent", "GoogleBot/2.1")])}),
    (
        Validate(openapi=PETS),
        {
            "request": Request("GET", "/pets?limit=3"),
            "refused_by": Request("GET", "/pets?limit=many"),
        },
    ),
    (
        Signature.model_validate({"skew": "2h"}),
        {
            "request": Request(headers=[("authorization", signed("nonce-0001"))]),
            "refused_by": Request(headers=[("authorization", signed("nonce-0002")[:-8] + 'AAAAAAA="')]),
            "consumers": (ANNA,),
        },
    ),
]


BESIDE_A_SERVICE = {"forward_auth", "oauth2_introspection"}
"""They ask another service: their own tests check them, with one."""
CROWDED = {"bulkhead"}
"""They refuse only while other requests are there: their own tests send those."""


@pytest.mark.parametrize(
    ("component", "around"), CONFORMING, ids=[component.name for component, _ in CONFORMING]
)
async def test_a_standard_component_conforms(component: Component, around: dict[str, Any]) -> None:
    await check_component(component, **around)


def test_every_standard_component_is_checked() -> None:
    # The check asks over HTTP: what is there for WebSockets only has nothing to say.
    offered = [*asgi_gateway_plugins.gateway_components(), *asgi_gateway_contrib.gateway_components()]
    kinds = {kind.name for kind in offered if "http" in kind.serves}
    assert kinds == {component.name for component, _ in CONFORMING} | BESIDE_A_SERVICE | CROWDED


class Undescribed(Component, name="undescribed", stage=Stage.TRANSFORM):
    """Has an option that nobody described."""

    model_config = ConfigDict(frozen=False)

    option: str = ""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        return app


class Unhashable(Component, name="unhashable", stage=Stage.TRANSFORM):
    """Has an option that cannot be hashed, and one that is equal only to itself."""

    option: list[str] = []
    """A list."""
    other: object = None
    """Anything."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        return app


class Thing:
    """Equal only to itself."""


class Remembers(Component, name="remembers", stage=Stage.TRANSFORM):
    """Writes into itself."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        self.__dict__["app"] = 1
        return app


class Buffers(Component, name="buffers", stage=Stage.TRANSFORM):
    """Holds the whole answer back."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        async def buffers(scope: Scope, receive: Receive, send: Send) -> None:
            held: list[Message] = []

            async def hold(message: Message) -> None:
                held.append(message)

            await app(scope, receive, hold)
            for message in held:
                await send(message)

        return buffers


class Swallows(Component, name="swallows", stage=Stage.TRANSFORM):
    """Keeps a cancellation and a failure for itself."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        async def swallows(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await app(scope, receive, send)
            except (asyncio.CancelledError, Aborted):
                await send({"type": "http.response.body", "body": b""})

        return swallows


class Denies(Component, name="denies", stage=Stage.GUARD, refuses=True):
    """Refuses by hand, and for all gateways at once."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        async def denies(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == "/forbidden" or closed:
                closed.append(True)
                await send({"type": "http.response.start", "status": 403, "headers": []})
                await send({"type": "http.response.body", "body": b"no"})
                return
            await app(scope, receive, send)

        closed = CLOSED
        return denies


CLOSED: list[bool] = []


class Silent(Component, name="silent", stage=Stage.GUARD):
    """Refuses, and does not say so."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        refuse = build.refuse(app)

        def silent(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            return refuse(scope, receive, send, Refusal(403, "closed"))

        return silent


async def faults_of(component: Component, **around: Any) -> str:
    with pytest.raises(AssertionError) as raised:
        await check_component(component, **around)
    return str(raised.value)


async def test_options_that_are_loose_or_undescribed_are_told() -> None:
    faults = await faults_of(Undescribed())
    assert "not frozen" in faults
    assert "option option has no description" in faults


async def test_options_that_cannot_be_compared_or_hashed_are_told() -> None:
    faults = await faults_of(Unhashable(other=Thing()))
    assert "not equal to it" in faults
    assert "not hashable" in faults


async def test_a_component_that_changes_itself_is_told() -> None:
    assert "changed the component itself" in await faults_of(Remembers())


async def test_a_component_that_buffers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgi_gateway.testing.conformance.PATIENCE", 0.1)
    faults = await faults_of(Buffers())
    assert "does not stream" in faults
    assert "never came to its end" in faults


async def test_a_component_that_swallows_what_ends_a_request_is_told() -> None:
    faults = await faults_of(Swallows())
    assert "before a chunk: CancelledError did not come out" in faults
    assert "ended as if it were whole" in faults


async def test_refusals_by_hand_are_told() -> None:
    CLOSED.clear()
    faults = await faults_of(Denies(), refused_by=Request(path="/forbidden"))
    assert "not application/problem+json" in faults
    assert "they share state" in faults
    assert "`mode: report` refused" in faults


async def test_a_component_without_a_request_that_passes_is_told() -> None:
    assert "answered with 403" in await faults_of(Silent())


async def test_refused_by_has_to_fit_what_the_component_says() -> None:
    assert "may refuse" in await faults_of(RateLimit(limit="1/minute"))
    assert "never refuses" in await faults_of(RequestId(), refused_by=Request())


# The page


async def test_the_examples_of_the_page_work() -> None:
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(block, names)
    tests = {name: test for name, test in names.items() if name.startswith("test_")}
    assert len(tests) >= 5
    for test in tests.values():
        await test()
