"""Health checks see the target, and not how busy the gateway keeps it."""

import asyncio
import ssl
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme

from asgi_gateway.gateway import Gateway
from asgi_gateway.upstream import Target
from tests.peers import peer
from tests.wire.conftest import OK, Behind, Line, Serving, served

from .conftest import until

QUICK = {"interval": "10ms", "timeout": "5s", "healthy": 1, "unhealthy": 1}


async def checked(stack: AsyncExitStack, *urls: str, **options: Any) -> tuple[Serving, list[Target]]:
    up = {"targets": list(urls), "ejection": None, **options}
    routes = [{"name": "all", "path": "/*", "upstream": "up"}]
    gateway = Gateway.parse({"upstreams": {"up": up}, "routes": routes})
    kept = gateway._kernel.resources._kept.values()
    targets = [each.value for each in kept if isinstance(each.value, Target)]
    return await stack.enter_async_context(served(gateway)), targets


@pytest.mark.parametrize("kind", ["http", "tcp"])
async def test_a_target_that_is_busy_is_not_taken_out(
    kind: str, upstream: Behind, stack: AsyncExitStack
) -> None:
    checks = asyncio.Semaphore(0)

    async def script(line: Line) -> None:
        if kind == "tcp":
            checks.release()
        while b"/slow" not in await line.head():
            checks.release()
            line.say(OK)
        await line.gone()

    ups = [await upstream(script) for _ in range(2)]
    pool = {"max_connections": 1, "max_waiting": 0}
    serving, targets = await checked(
        stack, *(up.url for up in ups), pool=pool, health={**QUICK, "kind": kind}
    )
    for _ in ups:
        (await serving.caller()).say("/slow")
    await until(lambda: all(any(b"/slow" in head for head in up.heads) for up in ups))
    for _ in range(20):
        await checks.acquire()
    assert [(target.healthy, target.active) for target in targets] == [(True, 1), (True, 1)]


@pytest.mark.parametrize("kind", ["http", "tcp"])
@pytest.mark.parametrize("place", ["tcp", "unix", "tls"])
async def test_a_target_that_is_gone_is_noticed_and_comes_back(
    place: str, kind: str, stack: AsyncExitStack, tmp_path: Path
) -> None:
    checks = asyncio.Semaphore(0)
    context = None
    if place == "tls":
        authority = trustme.CA()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        checks.release()
        while await reader.readuntil(b"\r\n\r\n"):
            checks.release()
            writer.write(OK)

    where = tmp_path / "up" if place == "unix" else None
    target_up = AsyncExitStack()
    port = await target_up.enter_async_context(peer(serve, path=where, tls=context))
    url = {
        "unix": f"unix:{tmp_path}/up",
        "tcp": f"http://127.0.0.1:{port}",
        "tls": f"https://127.0.0.1:{port}",
    }[place]
    tls = {"tls": {"ca": str(tmp_path / "ca.pem")}} if place == "tls" else {}
    # Connections that stay would go on being answered by a server that is closed.
    options = {"pool": {"max_requests": 1}, "health": {**QUICK, "kind": kind}, **tls}
    _, (target,) = await checked(stack, url, **options)
    for _ in range(5):
        await checks.acquire()
    assert target.healthy
    await target_up.aclose()
    if where is not None:
        where.unlink(missing_ok=True)
    await until(lambda: not target.healthy)
    async with peer(serve, port, path=where, tls=context):
        await until(lambda: target.healthy)


async def test_a_tcp_check_wants_tls_where_the_target_speaks_it(
    upstream: Behind, stack: AsyncExitStack
) -> None:
    async def silent(line: Line) -> None:
        await line.gone()

    up = await upstream(silent)
    health = {**QUICK, "kind": "tcp"}
    _, (plain,) = await checked(stack, up.url, health=health)
    health["timeout"] = "50ms"
    _, (secure,) = await checked(stack, up.url.replace("http:", "https:"), health=health)
    await until(lambda: not secure.healthy)
    assert plain.healthy


async def test_checks_leave_nothing_open(upstream: Behind, stack: AsyncExitStack) -> None:
    opened, open_now = [0], [0]

    async def script(line: Line) -> None:
        opened[0] += 1
        open_now[0] += 1
        try:
            await line.gone()
        finally:
            open_now[0] -= 1

    up = await upstream(script)
    await checked(stack, up.url, health={**QUICK, "kind": "tcp"})
    await until(lambda: opened[0] >= 20)
    assert open_now[0] <= 2
