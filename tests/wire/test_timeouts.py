"""Each phase of a call has its own time, connections grow old, and trailers pass."""

import asyncio
import errno
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from asgi_gateway.gateway import Gateway
from asgi_gateway.transport import dialing
from tests.peers import peer
from tests.wire.conftest import OK, Behind, Front, Line, Serving, served


async def reason(serving: Serving, **options: Any) -> tuple[int, str]:
    answer = await (await serving.caller()).ask(**options)
    return answer.status, json.loads(answer.body)["reason"]


async def silent(line: Line) -> None:
    await line.gone()


async def deaf(line: Line) -> None:
    """Reads nothing: what is sent stays in the system's buffers, and then in the gateway's."""
    line.reader._transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.Event().wait()


async def test_a_tls_handshake_that_stalls_has_its_own_time(upstream: Behind, front: Front) -> None:
    up = await upstream(silent)
    serving = await front(targets=[up.url.replace("http:", "https:")], timeout={"tls": "50ms"})
    assert await reason(serving) == (504, "tls_timeout")


async def test_a_target_that_does_not_read_has_its_own_time(upstream: Behind, front: Front) -> None:
    serving = await front(await upstream(deaf), timeout={"write": "50ms"})
    # In pieces, as a body of one piece is written as a whole.
    caller = await serving.caller()
    caller.writer.write(b"POST / HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 20000000\r\n\r\n")
    sending = asyncio.create_task(fill(caller.writer))
    answer = await caller.answer()
    assert (answer.status, json.loads(answer.body)["reason"]) == (504, "write_timeout")
    sending.cancel()


async def fill(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(bytes(65536))
        await writer.drain()


async def test_a_connection_that_does_not_stand_has_its_own_time(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*args: object) -> socket.socket:
        return await asyncio.Event().wait()  # type: ignore[return-value]

    monkeypatch.setattr(dialing, "connect", never)
    serving = await front(targets=["http://127.0.0.1:9"], timeout={"connect": "50ms"})
    assert await reason(serving) == (504, "connect_timeout")


@pytest.mark.parametrize(("kind", "key"), [("text/plain", "idle"), ("text/event-stream", "stream")])
async def test_an_answer_that_stops_is_cut_after_its_own_time(
    upstream: Behind, front: Front, kind: str, key: str
) -> None:
    async def stops(line: Line) -> None:
        await line.head()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"
        line.say(head.encode() + b"1\r\na\r\n")
        await line.gone()

    up = await upstream(stops)
    caller = await (await front(up, timeout={key: "50ms"})).caller()
    caller.say()
    assert (await caller.head()).status == 200
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await caller.reader.readuntil(b"0\r\n\r\n")
    await up.closed.wait()


async def test_an_event_stream_outlives_total(upstream: Behind, front: Front) -> None:
    async def streams(line: Line) -> None:
        await line.head()
        line.say(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(10):
            line.say(b"7\r\ndata: a\r\n")
            await asyncio.sleep(0.02)
        line.say(b"0\r\n\r\n")

    caller = await (await front(await upstream(streams), timeout={"total": "60ms"})).caller()
    assert (await caller.ask()).body == b"data: a" * 10


async def events(scope: Any, receive: Any, send: Any) -> None:
    kind = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": kind})
    for _ in range(10):
        await send({"type": "http.response.body", "body": b"data: a", "more_body": True})
        await asyncio.sleep(0.02)
    await send({"type": "http.response.body", "body": b""})


async def test_an_event_stream_of_an_app_in_this_process_outlives_total() -> None:
    document = {
        "upstreams": {"up": {"asgi": "tests.wire.test_timeouts:events", "timeout": {"total": "60ms"}}},
        "routes": [{"name": "all", "path": "/*", "upstream": "up"}],
    }
    async with served(Gateway.parse(document)) as front:
        assert (await (await front.caller()).ask()).body == b"data: a" * 10


@pytest.mark.parametrize("pool", [{"max_requests": 2}, {"max_age": "1ms"}])
async def test_connections_are_replaced_when_they_are_worn(
    upstream: Behind, front: Front, pool: dict[str, Any]
) -> None:
    async def script(line: Line) -> None:
        while True:
            await line.head()
            await asyncio.sleep(0.002)
            line.say(OK)

    up = await upstream(script)
    caller = await (await front(up, pool=pool)).caller()
    for _ in range(4):
        assert (await caller.ask()).status == 200
    assert up.connections == (2 if "max_requests" in pool else 4)


@asynccontextmanager
async def names(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> AsyncIterator[list[str]]:
    """`a.test` leads to these addresses; who was asked for."""
    asked: list[str] = []

    async def getaddrinfo(self: object, host: str, port: int, **options: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    yield asked


async def test_a_name_is_looked_up_for_each_connection_and_a_dead_address_costs_little(
    upstream: Behind, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    up = await upstream()
    connect: Callable[..., Any] = dialing.connect

    async def dead_or_alive(family: int, place: Any) -> socket.socket:
        if place[0] == "192.0.2.1":
            await asyncio.Event().wait()
        made: socket.socket = await connect(family, place)
        return made

    monkeypatch.setattr(dialing, "connect", dead_or_alive)
    monkeypatch.setattr(dialing, "DELAY", 0.01)
    async with names(monkeypatch, ("192.0.2.1", up.port), ("127.0.0.1", up.port)) as asked:
        serving = await front(targets=[f"http://a.test:{up.port}"], pool={"max_requests": 1})
        caller = await serving.caller()
        for _ in range(3):
            assert (await caller.ask()).status == 200
    assert asked == ["a.test"] * 3


@pytest.mark.parametrize("host", ["x..y", "a" * 70])
async def test_a_host_that_is_no_name_is_a_bad_gateway(
    front: Front, host: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert await reason(await front(targets=[f"http://{host}:80"])) == (502, "connect_failed")
    assert "Traceback" not in caplog.text


async def test_too_many_open_files_are_no_fault_of_the_target(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def exhausted(*args: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(dialing, "connect", exhausted)
    serving = await front(targets=["http://127.0.0.1:9", "http://127.0.0.1:10"], ejection={"failures": 1})
    for _ in range(3):
        assert await reason(serving) == (503, "exhausted")


TRAILED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n"
    b"0\r\nX-Sum: 7\r\nSet-Cookie: a=1\r\nContent-Type: a/b\r\n\r\n"
)


@pytest.mark.parametrize(("te", "end"), [("TE: trailers", b"0\r\nx-sum: 7\r\n\r\n"), ("X: a", b"0\r\n\r\n")])
async def test_trailers_reach_callers_who_take_them(
    upstream: Behind, front: Front, te: str, end: bytes
) -> None:
    async def script(line: Line) -> None:
        while True:
            await line.head()
            line.say(TRAILED)

    up = await upstream(script)
    caller = await (await front(up)).caller()
    for _ in range(2):
        caller.say("/", te)
        assert (await caller.reader.readuntil(end)).endswith(b"\r\n\r\n2\r\nok\r\n" + end)
    assert (b"\r\nte: trailers\r\n" in up.heads[0]) == (te == "TE: trailers")


async def test_trailers_never_reach_http_1_0(upstream: Behind, front: Front) -> None:
    async def script(line: Line) -> None:
        await line.head()
        line.say(TRAILED)

    caller = await (await front(await upstream(script))).caller()
    caller.writer.write(b"GET / HTTP/1.0\r\nHost: gw.test\r\nTE: trailers\r\n\r\n")
    assert (await caller.reader.read()).endswith(b"\r\n\r\nok")


async def test_an_empty_body_in_chunks_has_the_length_0(upstream: Behind, front: Front) -> None:
    up = await upstream()
    caller = await (await front(up)).caller()
    caller.writer.write(b"POST / HTTP/1.1\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    assert (await caller.answer()).status == 200
    assert b"\r\ncontent-length: 0\r\n" in up.heads[0]


async def test_100_continue_is_not_said_before_the_chain_allows_the_request(
    upstream: Behind, front: Front
) -> None:
    up = await upstream()
    caller = await (await front(up, route={"components": ["key_auth"]})).caller()
    caller.say("/", "Expect: 100-continue", "Content-Length: 5", method="POST")
    refused = await caller.head()
    assert (refused.status, refused.all(b"connection")) == (401, [b"close"])
    assert up.heads == []


async def test_tls_tcp_checks_notice_a_target_that_agrees_on_nothing(
    upstream: Behind, stack: AsyncExitStack, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    port = await stack.enter_async_context(peer(keep, tls=context))
    bad = await upstream(silent)
    document = {
        "upstreams": {
            "up": {
                "targets": [f"https://127.0.0.1:{port}", bad.url.replace("http:", "https:")],
                "tls": {"ca": str(tmp_path / "ca.pem")},
                "timeout": {"tls": "50ms"},
                "health": {"kind": "tcp", "interval": "10ms", "healthy": 1, "unhealthy": 1},
            }
        },
        "routes": [{"name": "all", "path": "/*", "upstream": "up"}],
    }
    gateway = Gateway.parse(document)
    async with served(gateway):
        kept = gateway._kernel.resources._kept.values()
        targets = [each.value for each in kept if hasattr(each.value, "healthy")]
        while [target.healthy for target in targets] != [True, False]:
            await asyncio.sleep(0.005)
