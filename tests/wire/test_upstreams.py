"""The kinds of upstreams, how a target is picked, and how one is watched."""

import asyncio
import logging
import ssl
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme
from starlette.applications import Starlette
from starlette.routing import Mount

from asgi_gateway.asgi import Receive, Scope, Send, answer
from asgi_gateway.config import TimeoutConfig
from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from asgi_gateway.upstream import Target
from tests.peers import peer
from tests.wire.conftest import OK, Behind, Front, Line, Serving, served


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """An app of this process."""
    if scope["type"] == "http":
        await answer(scope, send, 200, b"from the app", (), b"text/plain")


def named(name: bytes) -> Any:
    async def script(line: Line) -> None:
        while True:
            await line.head()
            line.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(name), name))

    return script


async def front_of(stack: AsyncExitStack, **upstream: Any) -> Serving:
    document = {
        "upstreams": {"up": upstream},
        "routes": [{"name": "all", "path": "/*", "upstream": "up"}],
    }
    return await stack.enter_async_context(served(Gateway.parse(document)))


async def bodies(serving: Serving, number: int) -> list[bytes]:
    caller = await serving.caller()
    return [(await caller.ask()).body for _ in range(number)]


async def test_round_robin_is_exact_by_weight(upstream: Behind, stack: AsyncExitStack) -> None:
    a, b, c = await upstream(named(b"a")), await upstream(named(b"b")), await upstream(named(b"c"))
    targets = [{"url": a.url, "weight": 3}, b.url, {"url": c.url, "weight": 0}]
    got = await bodies(await front_of(stack, targets=targets), 40)
    assert Counter(got) == {b"a": 30, b"b": 10}


@pytest.mark.parametrize("balancer", ["random", "least_requests"])
async def test_every_target_gets_its_part(balancer: str, upstream: Behind, stack: AsyncExitStack) -> None:
    ups = [await upstream(named(name)) for name in (b"a", b"b")]
    serving = await front_of(stack, targets=[up.url for up in ups], balancer=balancer)
    counts = Counter(await bodies(serving, 200))
    assert min(counts[b"a"], counts[b"b"]) > 50


async def test_least_requests_goes_to_the_target_that_is_less_busy(
    upstream: Behind, stack: AsyncExitStack
) -> None:
    async def hangs(line: Line) -> None:
        await line.head()
        await line.gone()

    slow, quick = await upstream(hangs), await upstream(named(b"quick"))
    serving = await front_of(stack, targets=[slow.url, quick.url], balancer="least_requests")
    stuck = await serving.caller()
    stuck.say()
    while not slow.heads and not quick.heads:
        await asyncio.sleep(0)
    if not slow.heads:
        stuck = await serving.caller()
        stuck.say()
        while not slow.heads:
            await asyncio.sleep(0)
    assert set(await bodies(serving, 10)) == {b"quick"}


async def test_an_app_of_this_process_and_a_service_share_a_pool(
    upstream: Behind, stack: AsyncExitStack
) -> None:
    up = await upstream(named(b"service"))
    serving = await front_of(stack, targets=[up.url, {"asgi": "tests.wire.test_upstreams:app"}])
    assert Counter(await bodies(serving, 10)) == {b"service": 5, b"from the app": 5}


@pytest.mark.parametrize("transport", ["http1", "httpx"])
async def test_a_unix_socket_is_a_target(transport: str, stack: AsyncExitStack, tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await writer.drain()

    path = tmp_path / "up.sock"
    async with peer(serve, path=path):
        serving = await front_of(stack, targets=[f"unix:{path}"], transport=transport)
        assert await bodies(serving, 1) == [b"ok"]


@pytest.mark.parametrize("transport", ["http1", "httpx"])
async def test_tls_targets_are_verified_and_shown_a_certificate(
    transport: str, stack: AsyncExitStack, tmp_path: Path
) -> None:
    authority = trustme.CA()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("orders.test").configure_cert(server_side)
    authority.configure_trust(server_side)
    server_side.verify_mode = ssl.CERT_REQUIRED
    ca, pem = tmp_path / "ca.pem", tmp_path / "client.pem"
    authority.cert_pem.write_to_path(str(ca))
    authority.issue_cert("gateway@gw.test").private_key_and_cert_chain_pem.write_to_path(str(pem))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(65536):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")

    async with peer(serve, tls=server_side) as port:
        url = f"https://127.0.0.1:{port}"
        tls = {"ca": str(ca), "certificate": str(pem), "server_name": "orders.test"}
        good = await front_of(stack, targets=[url], tls=tls, transport=transport)
        assert await bodies(good, 2) == [b"ok", b"ok"]
        wrong = await front_of(
            stack, targets=[url], tls={**tls, "server_name": "other.test"}, transport=transport
        )
        answered = await (await wrong.caller()).ask()
        assert (answered.status, b"tls_failed" in answered.body) == (502, True)


async def test_httpx_carries_requests_where_it_is_chosen(upstream: Behind, front: Front) -> None:
    up = await upstream()
    caller = await (await front(up, transport="httpx", forwarded="none")).caller()
    answered = await caller.ask("/a%20b?q=%2F", "X-Dup: 1", "x-dup: 2", method="POST", body=b"x")
    assert answered.status == 200
    assert up.heads[0].startswith(b"POST /a%20b?q=%2F HTTP/1.1\r\n")
    assert [line for line in up.heads[0].split(b"\r\n") if line.startswith(b"x-dup")] == [
        b"x-dup: 1",
        b"x-dup: 2",
    ]


async def test_a_target_that_is_not_well_is_taken_out_and_comes_back(
    upstream: Behind, stack: AsyncExitStack
) -> None:
    well, checked = [False], asyncio.Event()

    async def sick(line: Line) -> None:
        while True:
            head = await line.head()
            if b"/healthz" in head:
                checked.set()
                line.say(OK if well[0] else b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n")
            else:
                line.say(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nsick")

    good, bad = await upstream(named(b"good")), await upstream(sick)
    health = {"path": "/healthz", "interval": "10ms", "healthy": 1, "unhealthy": 1, "statuses": [200]}
    serving = await front_of(stack, targets=[good.url, bad.url], health=health)
    await checked.wait()
    caller = await serving.caller()
    while {(await caller.ask()).body for _ in range(4)} != {b"good"}:
        await asyncio.sleep(0)
    well[0] = True
    while {(await caller.ask()).body for _ in range(4)} != {b"good", b"sick"}:
        await asyncio.sleep(0)


def test_a_path_of_a_probe_that_is_none_is_a_problem() -> None:
    with pytest.raises(ConfigError, match="probes"):
        Gateway.parse({"probes": {"live": "/{a"}})


async def views(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": memoryview(b"one"), "more_body": True})
    await send({"type": "http.response.body", "body": bytearray(b"two")})


@pytest.mark.parametrize("component", [None, "cache", "compress", "envelope"])
async def test_an_app_of_this_process_may_say_other_kinds_of_bytes(component: str | None) -> None:
    document = {
        "upstreams": {"app": {"asgi": "tests.wire.test_upstreams:views"}},
        "routes": [
            {"name": "all", "path": "/*", "upstream": "app", "components": [component] if component else []}
        ],
    }
    async with served(Gateway.parse(document)) as front:
        answer = await (await front.caller()).ask()
    assert answer.status == 200
    assert b"onetwo" in answer.body


async def scopes(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(scope, send, 200, " ".join(sorted(key for key in scope if "router" in key)).encode())


async def test_an_app_of_this_process_sees_nothing_of_the_application_around_the_gateway() -> None:
    document = {
        "upstreams": {"app": {"asgi": "tests.wire.test_upstreams:scopes"}},
        "routes": [{"name": "all", "path": "/*", "upstream": "app"}],
    }
    gateway = Gateway.parse(document)
    around = Starlette(routes=[Mount("/in", gateway)])
    async with served(gateway, around) as front:
        assert (await (await front.caller()).ask("/in/a")).body == b""


async def test_a_target_that_fails_is_told_once_until_it_answers_again(
    upstream: Behind, front: Front, caplog: pytest.LogCaptureFixture
) -> None:
    works = False

    async def script(line: Line) -> None:
        await line.head()
        line.say(OK if works else b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n")

    up = await upstream(script)
    caller = await (await front(up, ejection=None)).caller()
    with caplog.at_level(logging.INFO, "asgi_gateway"):
        for _ in range(4):
            await caller.ask()
        works = True
        await caller.ask()
    assert [record.getMessage() for record in caplog.records] == [
        f"upstream up: target {up.url} fails: it answered 503",
        f"upstream up: target {up.url} answers again",
    ]


async def test_connections_and_health_outlive_a_reload_that_changes_other_things(
    upstream: Behind, front: Front
) -> None:
    up = await upstream()
    serving = await front(up, timeout={"total": "5s"})
    caller = await serving.caller()
    assert (await caller.ask()).status == 200
    kept = serving.gateway._kernel.resources._kept
    (target,) = [each.value for each in kept.values() if isinstance(each.value, Target)]
    target.mark(healthy=False)
    before = serving.gateway.config
    changed = before.upstreams["up"].model_copy(update={"timeout": TimeoutConfig(total="6s")})
    await serving.gateway.reload(before.model_copy(update={"upstreams": {"up": changed}}))
    assert (await caller.ask()).status == 200
    assert up.connections == 1
    assert [each.value.healthy for each in kept.values() if isinstance(each.value, Target)] == [False]
