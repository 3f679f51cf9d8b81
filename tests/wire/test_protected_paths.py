"""One path for all: however a path is spelled, it is refused, or everybody sees the same one."""

import itertools
import random
import re
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send
from asgi_gateway.component import Build, Component
from asgi_gateway.config import Paths
from asgi_gateway.exchange import Exchange
from asgi_gateway.gateway import Gateway
from asgi_gateway.hookspecs import hookimpl
from asgi_gateway.paths import Ambiguous, canonical
from asgi_gateway.patterns import Pattern
from asgi_gateway.precedence import Entry
from asgi_gateway.routing import Table
from asgi_gateway.stage import Stage
from tests.wire.conftest import Behind, Caller, Serving, served
from tests.wire.spelled import PROTECTED, ROUTES, careless, spellings
from tests.wire.strict import Strict

POLICIES: list[dict[str, str]] = [
    {},
    {"dot_segments": "resolve", "double_slash": "merge", "encoded_slash": "decode"},
]
"""Where encoded slashes, backslashes or semicolons are kept, a careless server may see another path."""


async def gateway(
    stack: AsyncExitStack,
    upstream: Behind,
    paths: dict[str, str],
    plugins: Iterable[object] = (),
    mount: str = "",
    **more: Any,
) -> tuple[Serving, dict[str, Strict]]:
    strict = {name: Strict() for name in PROTECTED}
    document = {
        "paths": paths,
        "consumers": [{"name": "acme", "keys": ["k-1"]}],
        "upstreams": {name: {"targets": [(await upstream(each)).url]} for name, each in strict.items()},
        "routes": ROUTES,
        **more,
    }
    inner = Gateway.parse(document, plugins=plugins)
    app = Starlette(routes=[Mount(mount, inner)]) if mount else None
    return await stack.enter_async_context(served(inner, app)), strict


class Spelled:
    """Asks for targets as they are, over one connection as long as that lives."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        self.caller: Caller | None = None

    async def ask(self, target: bytes, *fields: bytes) -> int:
        if self.caller is None:
            self.caller = await self.serving.caller()
        lines = [b"GET " + target + b" HTTP/1.1", b"Host: gw.test", *fields, b"", b""]
        self.caller.writer.write(b"\r\n".join(lines))
        answer = await self.caller.answer()
        if answer.all(b"connection"):
            self.caller = None
        return answer.status


@pytest.mark.parametrize("paths", POLICIES)
@pytest.mark.parametrize("mount", ["", "/api", "/a%20b"])
async def test_no_spelling_of_a_protected_path_gets_through_without_a_key(
    mount: str, paths: dict[str, str], upstream: Behind, stack: AsyncExitStack
) -> None:
    serving, upstreams = await gateway(stack, upstream, paths, mount=unquote(mount))
    spelled, tried = Spelled(serving), sorted(set(spellings()))
    assert len(tried) > 600
    written = {target: target if "://" in target else mount + target for target in tried}
    if mount:
        # The place itself in other spellings, and ways into it and out of it.
        for front in (
            "/%61pi",
            "/a%20%62",
            "/api%2f",
            "/x/.." + mount,
            mount + "/x/..",
            mount + "/.." + mount,
        ):
            written |= {front + target: front + target for target in tried if target.startswith("/")}
    statuses = {target: await spelled.ask(text.encode("latin-1")) for target, text in written.items()}
    for name, strict in upstreams.items():
        assert [target for target in strict.targets if PROTECTED[name].fullmatch(careless(target))] == []
        assert strict.breaches == []
    assert set(statuses.values()) <= {200, 400, 401, 404}
    plain = ("/admin", "/admin/x", "/secret", "/users/7/keys", "/shop/admin/x", "/old/admin/x", "/%61dmin/x")
    assert {statuses.get(target) for target in plain} == {401}
    for target in plain:
        assert await spelled.ask((mount + target).encode(), b"X-Api-Key: k-1") == 200
    assert b"/secret" in upstreams["plain"].targets
    assert b"/v2/admin/x" in upstreams["old"].targets
    assert upstreams["shop"].targets[-1] == b"/admin/x"


SIGNS = [
    "a",
    "b",
    "admin",
    "secret",
    "users",
    "7",
    "keys",
    "shop",
    "old",
    "x.y",
    "%61",
    "%2541",
    "%C3%A9",
    "\xe9",
]
SIGNS += [
    "/",
    "/",
    "/",
    "/",
    ".",
    "..",
    "%2e",
    "%2E",
    "%2f",
    "%5C",
    "\\",
    ";",
    "%3b",
    "%00",
    "%0d%0a",
    "%",
    "%zz",
]
SIGNS += [
    "%20",
    " ",
    "+",
    "~",
    "%7e",
    ":",
    "@",
    "%c0%af",
    "%ff",
    "%252f",
    "%25",
    "%3F",
    "%23",
    "&",
    "=",
    "*",
    "|",
]


def random_paths(number: int) -> Iterator[bytes]:
    dice = random.Random(17)
    for _ in range(number):
        yield ("/" + "".join(dice.choices(SIGNS, k=dice.randint(1, 8)))).encode("latin-1")


def test_of_ten_thousand_paths_none_reaches_a_protected_one_by_an_open_route() -> None:
    keys = {route["name"] for route in ROUTES if "components" in route}
    table = Table(
        [Entry(route["name"], Pattern(route["path"]), route["upstream"], frozenset()) for route in ROUTES]
    )
    accepted = protected = 0
    for paths in POLICIES:
        view = canonical(Paths.model_validate(paths))
        for raw in random_paths(10_000):
            try:
                path = view(raw)
            except Ambiguous:
                continue
            accepted += 1
            assert view(path.encode()) == path
            found = table.match("GET", "gw.test", path, {"query_string": b"", "headers": []})
            assert found is not None
            if PROTECTED["plain"].fullmatch(careless(path.encode())):
                protected += 1
                assert found[0].name in keys, (raw, path)
    assert accepted > 5000
    assert protected > 20


class Look(Component, name="look", stage=Stage.GUARD):
    """Notes what a component sees of a path."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        async def look(scope: Scope, receive: Receive, send: Send) -> None:
            exchange = Exchange.of(scope)
            SEEN.append((exchange.route, exchange.path, scope["raw_path"], scope["path"]))
            await app(scope, receive, send)

        return look


SEEN: list[tuple[str, str, bytes, str]] = []


class Plugin:
    @hookimpl
    def gateway_components(self) -> Iterable[type[Component]]:
        return [Look]


@pytest.mark.parametrize("paths", POLICIES)
async def test_components_and_upstream_see_one_path(
    paths: dict[str, str], upstream: Behind, stack: AsyncExitStack
) -> None:
    serving, upstreams = await gateway(stack, upstream, paths, [Plugin()], components=["look"])
    spelled, view = Spelled(serving), canonical(Paths.model_validate(paths))
    SEEN.clear()
    answered = 0
    for raw in random_paths(400):
        if re.search(rb"[ \x80-\xff]", raw):
            continue  # no target of a request: refused before there is a path
        before = len(SEEN)
        reached = {name: len(strict.requests) for name, strict in upstreams.items()}
        status = await spelled.ask(raw, b"X-Api-Key: k-1")
        try:
            path = view(raw)
        except Ambiguous:
            assert status == 400
            assert {name: len(strict.requests) for name, strict in upstreams.items()} == reached
            continue
        answered += 1
        assert status == 200
        ((route, seen, raw_path, decoded),) = SEEN[before:]
        assert seen == path == raw_path.decode()
        assert decoded == unquote_to_bytes(path).decode(errors="replace")
        name = next(each["upstream"] for each in ROUTES if each["name"] == route)
        (request,) = upstreams[name].requests[reached[name] :]
        sent = request.target.decode()
        if name == "plain":
            assert sent == path
        elif name == "shop":
            assert "/shop" + sent == path or (sent, path) == ("/", "/shop")
        else:
            assert sent.removeprefix("/v2").strip("/") == path.removeprefix("/old").strip("/")
    assert answered > 50


CONTROLS = [
    "%0d%0aX-Evil:1",
    "%0D%0A%0D%0AGET%20/evil",
    "%0a",
    "%0d",
    "%00",
    "a%00b",
    "%7f",
    "%1b[31m",
    "%09",
]
HARMLESS = ["%250d%250a", "%E5%98%8D%E5%98%8A", "%C2%85", "%E2%80%A8", "a%20b", "%22%27", "%7B%7D", "%25"]


async def test_no_line_ends_by_a_variable_of_the_path(upstream: Behind, stack: AsyncExitStack) -> None:
    strict = Strict()
    fields = {"set": {"x-id": "{id}", "x-rest": "{*}", "x-both": "<{id}|{*}>"}}
    document = {
        "upstreams": {"up": {"targets": [(await upstream(strict)).url], "forwarded": "none"}},
        "routes": [
            {
                "name": "all",
                "path": "/o/{id}/*",
                "upstream": "up",
                "rewrite": "/v2/{id}/{*}",
                "components": ["request_id", {"headers": {"request": fields, "response": fields}}],
            }
        ],
    }
    serving = await stack.enter_async_context(served(Gateway.parse(document)))
    spelled = Spelled(serving)
    for one, two in itertools.product(CONTROLS + HARMLESS, repeat=2):
        reached = len(strict.requests)
        status = await spelled.ask(f"/o/{one}/{two}".encode())
        if one in CONTROLS or two in CONTROLS:
            assert (status, len(strict.requests)) == (400, reached)
            continue
        assert status == 200
        request = strict.requests[-1]
        assert request.target.startswith(b"/v2/")
        names = {b"host", b"x-request-id", b"x-id", b"x-rest", b"x-both"}
        assert {name for name, _ in request.fields} <= names
    caller = await serving.caller()
    answer = await caller.ask("/o/%250d%250aX-Evil:1/%E5%98%8A")
    assert answer.all(b"x-id") == [b"%0d%0aX-Evil:1"]
    assert answer.all(b"x-evil") == []
    assert strict.breaches == []


HOSTS = {
    "gw.test": "gw.test",
    "GW.Test": "gw.test",
    "gw.test:80": "gw.test",
    "gw.test:": "gw.test",
    "gw_1.test": None,
    "[::1]:8080": "[::1]",
    "127.0.0.1": "127.0.0.1",
    "gw.test.": None,
    "other.test": None,
}
"""What may stand in Host, and the route that it leads to."""


@pytest.mark.parametrize("sent", ["preserve", "target", "api.example.com:8080"])
async def test_a_host_is_read_as_its_name_and_sent_as_configured(
    sent: str, upstream: Behind, stack: AsyncExitStack
) -> None:
    strict = Strict()
    up = await upstream(strict)
    told = [{"headers": {"response": {"set": {"x-route": "{route}"}}}}]
    route = {"path": "/*", "upstream": "up", "components": told}
    names = {"gw.test": "name", "[::1]": "v6", "127.0.0.1": "v4", None: "any"}
    routed = [{"name": name, **route, **({"host": [host]} if host else {})} for host, name in names.items()]
    document = {"upstreams": {"up": {"targets": [up.url], "host": sent}}, "routes": routed}
    serving = await stack.enter_async_context(served(Gateway.parse(document)))
    caller = await serving.caller()
    expected = {"target": f"127.0.0.1:{up.port}".encode()}
    for host, meant in HOSTS.items():
        for target in ("/x", f"http://{host}/x", f"HTTPS://{host.upper()}/x"):
            caller.writer.write(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            answer = await caller.answer()
            assert answer.status == 200, (host, target)
            assert answer.all(b"x-route") == [names[meant].encode()]
            wanted = host.encode() if sent == "preserve" else expected.get(sent, sent.encode())
            assert strict.requests[-1].all(b"host") == [wanted]
    assert strict.breaches == []
