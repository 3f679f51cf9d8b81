"""Control calls over real sockets: what the gateway itself asks other services."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from asgi_gateway.clock import Clock
from asgi_gateway.control import Control
from asgi_gateway.errors import ControlError
from tests.wire.conftest import Line, Raw, Script, answering, raw


@asynccontextmanager
async def calling(script: Script) -> AsyncIterator[tuple[Control, Raw]]:
    control = Control(Clock())
    async with raw(script) as service:
        yield control, service
        await control.aclose()


async def silent(line: Line) -> None:
    await line.head()
    await line.gone()


async def test_a_call_brings_status_fields_and_body() -> None:
    script = answering(b"HTTP/1.1 403 No\r\nX-Why: a\r\nX-Why: b\r\ncontent-length: 2\r\n\r\nno")
    async with calling(script) as (control, service):
        reply = await control.call("POST", service.url + "/x?y=1", [(b"x-a", b"1")], b"body", timeout=2)
    assert (reply.status, reply.body) == (403, b"no")
    assert [value for name, value in reply.headers if name == b"x-why"] == [b"a", b"b"]
    assert service.heads[0].startswith(b"POST /x?y=1 HTTP/1.1\r\n")
    assert b"content-length: 4" in service.heads[0].lower()


async def test_redirects_are_not_followed_and_cookies_not_kept() -> None:
    async def script(line: Line) -> None:
        while True:
            await line.head()
            line.say(
                b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\nset-cookie: a=1\r\ncontent-length: 0\r\n\r\n"
            )

    async with calling(script) as (control, service):
        for _ in range(2):
            assert (await control.call("GET", service.url, timeout=2)).status == 302
    assert len(service.heads) == 2
    assert not any(b"cookie" in head.lower() for head in service.heads)


async def test_what_is_too_large_or_no_http_is_an_error() -> None:
    large = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + b"x" * 100)
    async with calling(large) as (control, one):
        with pytest.raises(ControlError, match="too_large"):
            await control.call("GET", one.url, timeout=2, max_size=99)
    async with calling(answering(b"no HTTP at all\r\n\r\n")) as (control, one):
        with pytest.raises(ControlError, match="unreachable"):
            await control.call("GET", one.url, timeout=2)


async def test_the_environment_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with calling(answering(b"HTTP/1.1 204 No Content\r\n\r\n")) as (control, service):
        assert (await control.call("GET", service.url, timeout=2)).status == 204


async def test_a_service_that_is_frozen_is_not_waited_for_again_and_again() -> None:
    async with calling(silent) as (control, service):
        for _ in range(3):
            with pytest.raises(ControlError, match="timeout"):
                await control.call("GET", service.url, timeout=0.05)
        began = time.perf_counter()
        for _ in range(5):
            with pytest.raises(ControlError, match="unavailable"):
                await control.call("GET", service.url, timeout=5)
        assert time.perf_counter() - began < 0.2
        assert service.connections == 3


async def test_a_service_that_is_back_is_asked_again() -> None:
    frozen = True

    async def script(line: Line) -> None:
        await line.head()
        if frozen:
            await line.gone()
        line.say(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")

    seconds = 100.0
    control = Control(Clock(lambda: seconds))
    async with raw(script) as service:
        for _ in range(3):
            with pytest.raises(ControlError):
                await control.call("GET", service.url, timeout=0.05)
        frozen = False
        with pytest.raises(ControlError, match="unavailable"):
            await control.call("GET", service.url, timeout=1)
        seconds += 1
        assert (await control.call("GET", service.url, timeout=1)).status == 204
        assert (await control.call("GET", service.url, timeout=1)).status == 204
        await control.aclose()


async def test_a_caller_who_leaves_cancels_nothing() -> None:
    go = asyncio.Event()

    async def script(line: Line) -> None:
        await line.head()
        await go.wait()
        line.say(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")

    async with calling(script) as (control, service):
        caller = asyncio.create_task(control.call("GET", service.url, timeout=5))
        while not service.heads:
            await asyncio.sleep(0.001)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        (call,) = control._calls
        go.set()
        assert (await call).status == 204
