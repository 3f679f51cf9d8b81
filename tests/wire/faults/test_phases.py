"""Each phase of a call has its own time and its own name for what went wrong, and costs no place."""

import asyncio
import errno
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme

from asgi_gateway.gateway import Gateway
from tests.peers import peer
from tests.wire.conftest import OK, Behind, Front, Line, Raw, Serving, answering, served

from .conftest import H, until

Lookup = Callable[[str, list[tuple[str, int]]], None]
ONE = {"max_connections": 1, "wait": "300ms"}


async def outcome(serving: Serving, **asked: Any) -> tuple[int, str]:
    answer = await (await serving.caller()).ask(**asked)
    return answer.status, json.loads(answer.body)["reason"] if answer.status >= 500 else answer.body.decode()


async def cut(serving: Serving) -> None:
    """Its answer begins, and is cut."""
    caller = await serving.caller()
    caller.say()
    assert (await caller.head()).status == 200
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await caller.reader.readuntil(b"\r\n0\r\n\r\n")


async def to(stack: AsyncExitStack, *urls: str, **options: Any) -> Serving:
    """A front of targets that are no `Raw`."""
    up = {"targets": list(urls), "pool": ONE, "ejection": None, **options}
    routes = [{"name": "all", "path": "/*", "upstream": "up"}]
    return await stack.enter_async_context(served(Gateway.parse({"upstreams": {"up": up}, "routes": routes})))


@pytest.fixture
def lookup(monkeypatch: pytest.MonkeyPatch) -> Lookup:
    """Say where a name leads."""

    def lookup(name: str, places: list[tuple[str, int]]) -> None:
        loop = asyncio.get_running_loop()
        getaddrinfo = loop.getaddrinfo

        async def look(host: str, *args: Any, **options: Any) -> Any:
            if host != name:
                return await getaddrinfo(host, *args, **options)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]

        monkeypatch.setattr(loop, "getaddrinfo", look)

    return lookup


@pytest.fixture
def hole() -> Iterator[int]:
    """A port of 127.0.0.2 that answers no connection: its queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.2", 0))
        listener.listen(0)
        filling = [socket.socket() for _ in range(3)]
        for each in filling:
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for each in filling:
            each.close()


async def test_connecting_has_its_time(hole: int, stack: AsyncExitStack) -> None:
    serving = await to(stack, f"http://127.0.0.2:{hole}", timeout={"connect": "50ms"})
    for _ in range(3):
        assert await outcome(serving) == (504, "connect_timeout")


async def test_agreeing_on_tls_has_its_time(upstream: Behind, stack: AsyncExitStack) -> None:
    async def silent(line: Line) -> None:
        await line.gone()

    up = await upstream(silent)
    serving = await to(stack, up.url.replace("http:", "https:"), timeout={"tls": "50ms", "connect": "1h"})
    for _ in range(3):
        assert await outcome(serving) == (504, "tls_timeout")


async def test_a_target_that_takes_no_more_of_a_request_has_its_time(upstream: Behind, narrow: Front) -> None:
    async def script(line: Line) -> None:
        await line.head()
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    serving = await narrow(await upstream(script), timeout={"write": "50ms"})
    for _ in range(2):
        assert await outcome(serving, method="POST", body=bytes(20_000_000)) == (504, "write_timeout")


async def test_the_head_of_an_answer_has_its_time(upstream: Behind, narrow: Front) -> None:
    async def script(line: Line) -> None:
        await line.head()
        if line.upstream.connections > 1:
            line.say(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 20")
        await line.gone()

    serving = await narrow(await upstream(script), timeout={"head": "50ms"})
    for _ in range(3):
        assert await outcome(serving) == (504, "head_timeout")


async def test_the_pause_between_two_pieces_has_its_time(upstream: Behind, narrow: Front) -> None:
    async def script(line: Line) -> None:
        await line.head()
        line.say(H + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n")
        await line.gone()

    serving = await narrow(await upstream(script), timeout={"idle": "50ms"})
    for _ in range(3):
        await cut(serving)


async def test_the_whole_call_has_its_time(upstream: Behind, narrow: Front) -> None:
    """A body that goes on without end, and a head that does."""

    async def script(line: Line) -> None:
        head = await line.head()
        line.say(H if b"/head" in head else H + b"\r\n")
        while True:
            line.say(b"x: a\r\n")
            await line.writer.drain()
            await asyncio.sleep(0.005)

    serving = await narrow(await upstream(script), timeout={"total": "100ms"})
    await cut(serving)
    assert await outcome(serving, path="/head") == (504, "total_timeout")


async def test_waiting_for_a_connection_has_its_time(upstream: Behind, narrow: Front) -> None:
    async def hangs(line: Line) -> None:
        await line.head()
        await line.gone()

    up = await upstream(hangs)
    serving = await narrow(up, pool={"wait": "50ms"})
    (await serving.caller()).say()
    await until(lambda: up.heads)
    assert await outcome(serving) == (503, "pool_timeout")


# L1, L3


async def test_a_name_whose_first_address_is_dead_is_served_by_the_second(
    hole: int, lookup: Lookup, stack: AsyncExitStack
) -> None:
    loop = asyncio.get_running_loop()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)

    async with peer(serve, hole, host="127.0.0.3"):
        lookup("two.test", [("127.0.0.2", hole), ("127.0.0.3", hole)])
        serving = await to(stack, f"http://two.test:{hole}", timeout={"connect": "5s"})
        began = loop.time()
        assert await outcome(serving) == (200, "ok")
        assert loop.time() - began < 1


async def test_a_name_whose_first_address_refuses_is_served_by_the_second_at_once(
    upstream: Behind, lookup: Lookup, stack: AsyncExitStack
) -> None:
    up = await upstream()
    lookup("two.test", [("127.0.0.9", up.port), ("127.0.0.1", up.port)])
    assert await outcome(await to(stack, f"http://two.test:{up.port}")) == (200, "ok")


async def test_a_name_without_an_address_that_answers_is_a_502(lookup: Lookup, stack: AsyncExitStack) -> None:
    lookup("two.test", [("127.0.0.8", 1), ("127.0.0.9", 1)])
    serving = await to(stack, "http://two.test:1")
    for _ in range(3):
        assert await outcome(serving) == (502, "connect_failed")


@pytest.mark.parametrize("host", ["a" * 70 + ".test", "x..y"])
async def test_a_name_that_is_none_is_a_502_and_no_fault_of_the_gateway(
    host: str, stack: AsyncExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    serving = await to(stack, f"http://{host}:80")
    for _ in range(3):
        assert await outcome(serving) == (502, "connect_failed")
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_gateway_without_open_files_blames_no_target(
    upstream: Behind, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    ups = [await upstream() for _ in range(2)]
    ejection = {"failures": 1, "duration": "1h", "max_percent": 50}
    serving = await front(*ups, ejection=ejection)
    caller = await serving.caller()

    async def full(family: int, place: Any) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr("asgi_gateway.transport.dialing.connect", full)
        answers = [await caller.ask() for _ in range(4)]
    reasons = [(each.status, json.loads(each.body)["reason"]) for each in answers]
    assert reasons == [(503, "exhausted")] * 4
    for _ in range(4):
        assert (await caller.ask()).status == 200
    assert [len(up.heads) for up in ups] == [2, 2]


# TLS


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


async def test_a_target_that_ends_right_after_tls_costs_no_place(
    authority: trustme.CA, stack: AsyncExitStack, tmp_path: Path
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    served_already = [0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served_already[0] += 1
        if served_already[0] > 5:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)

    async with peer(serve, tls=context) as port:
        url = f"https://127.0.0.1:{port}"
        serving = await to(stack, url, tls={"ca": str(tmp_path / "ca.pem")})
        for _ in range(5):
            assert (await outcome(serving))[0] == 502
        for _ in range(5):
            assert await outcome(serving) == (200, "ok")


async def test_a_certificate_that_is_not_known_is_a_502(authority: trustme.CA, stack: AsyncExitStack) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pass

    async with peer(serve, tls=context) as port:
        serving = await to(stack, f"https://127.0.0.1:{port}")
        for _ in range(3):
            assert await outcome(serving) == (502, "tls_failed")


async def test_a_target_that_speaks_no_tls_is_a_502(upstream: Behind, stack: AsyncExitStack) -> None:
    async def plain(line: Line) -> None:
        line.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await line.gone()

    up: Raw = await upstream(plain)
    serving = await to(stack, up.url.replace("http:", "https:"))
    for _ in range(3):
        assert await outcome(serving) == (502, "tls_failed")


# M9


async def test_a_request_of_http_1_0_needs_no_host(upstream: Behind, narrow: Front) -> None:
    up = await upstream(answering(OK))
    caller = await (await narrow(up)).caller()
    caller.writer.write(b"GET / HTTP/1.0\r\n\r\n")
    assert (await caller.answer()).status == 200
    assert f"\r\nhost: 127.0.0.1:{up.port}\r\n".encode() in up.heads[0]
